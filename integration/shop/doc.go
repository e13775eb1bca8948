// Package shop tests the shop of examples/shop from outside: the program that users start, seen in a browser.
package shop
