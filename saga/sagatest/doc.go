// Package sagatest tests sagas and their stores.
package sagatest
