// Package outboxtest helps to test with an outbox: publishers that record and that fail on purpose, assertions about what was published, and the
// suites that a publisher ([TestPublisher]) or a store must pass.
package outboxtest
