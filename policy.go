// Package backstay keeps a service standing when what it calls does not.
package backstay
