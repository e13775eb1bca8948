module github.com/backstay-go/backstay/outbox/amqppub

go 1.26.0

require github.com/backstay-go/backstay v0.0.0

require github.com/rabbitmq/amqp091-go v1.16.0

replace github.com/backstay-go/backstay => ../..
