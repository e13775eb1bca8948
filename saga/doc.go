// Package saga runs durable operations of several steps, with compensation.
package saga
