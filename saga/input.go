package saga

import "reflect"

// inputOf returns how bodies get the input of their sequence: decoded anew for each, so that one which changes what it got changes
// nothing for the others. A type of which copies share nothing that can be changed is decoded once a sequence.
func inputOf[I any]() func(c *Ctx) (I, error) {
	plain := copies(reflect.TypeFor[I]())
	return func(c *Ctx) (in I, err error) {
		if plain {
			if kept, ok := c.frame.decoded.Load().(I); ok {
				return kept, nil
			}
		}
		in, err = decodeInput[I](c)
		if err == nil && plain {
			c.frame.decoded.CompareAndSwap(nil, in)
		}
		return in, err
	}
}

func decodeInput[I any](c *Ctx) (in I, err error) {
	err = c.def.decode("input of "+c.n.static, c.frame.input, &in)
	return in, err
}

// copies reports whether a copy of a value shares nothing with it that can be changed.
func copies(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return copies(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			if !copies(f.Type) {
				return false
			}
		}
		return true
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.Pointer, reflect.Slice, reflect.UnsafePointer:
		return false
	}
	return true
}
