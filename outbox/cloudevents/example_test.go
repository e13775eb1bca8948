package cloudevents_test

import (
	"fmt"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
)

func ExampleCodec_Attributes() {
	codec := cloudevents.New(cloudevents.Config{
		Source: "/shop/orders",
		Type:   func(m *outbox.Message) string { return "com.example." + m.Topic },
	})
	attrs, err := codec.Attributes(&outbox.Message{ID: "01a1", Topic: "order.created", Key: "customer 7", Seq: 12})
	if err != nil {
		fmt.Println(err)
	}
	for _, a := range attrs {
		fmt.Println(cloudevents.HTTP+a.Name, cloudevents.Encode(a.Value))
	}
	// Output:
	// ce-specversion 1.0
	// ce-id 01a1
	// ce-source /shop/orders
	// ce-type com.example.order.created
	// ce-partitionkey customer%207
	// ce-sequence 0000000000000000012
}
