package webhookpub

// What tests ask without a connection.
var (
	Public = public
	Sign   = sign
)
