package outbox

func child(role string) {}
