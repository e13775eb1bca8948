package backstay_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/backstay-go/backstay/httpclient"
)

// An http.Client gets the standard pipeline in one line.
func Example_http() {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests++; requests == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()

	client := &http.Client{Transport: httpclient.New(nil)}
	res, err := client.Get(server.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()

	fmt.Println(res.Status, "after", requests, "requests")
	// Output: 200 OK after 2 requests
}
