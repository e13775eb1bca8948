// Package outbox delivers a message for every row committed: a transactional outbox, the relay that publishes it, and the inbox that makes a
// consumer's effect happen once.
package outbox
