package expression

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// activation gives cel the attributes that an expression reads, when it reads them.
type activation struct{ x *exchange.Exchange }

func (a activation) ResolveName(name string) (any, bool) {
	if at := find(name); at != nil {
		return at.value(a.x), true
	}
	return nil, false
}

func (activation) Parent() interpreter.Activation { return nil }

// fields is what a table is made of.
type fields interface {
	// get is the value of a key; for one that is not there, what it reads as, and false.
	get(key string) (ref.Val, bool)
	// keys are all keys, each once, sorted.
	keys() []string
}

// table is a map that is total: a missing key reads as a default value instead of an error, and yet has() and "in" tell that it is
// missing. cel asks types with Find (traits.Mapper) for both in one, so this is none; check refuses all uses of the map as a whole
// for which cel would want one.
type table struct{ fields fields }

func (t *table) Get(key ref.Val) ref.Val {
	k, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key)
	}
	v, _ := t.fields.get(string(k))
	return v
}

func (t *table) IsSet(key ref.Val) ref.Val { return t.Contains(key) }

func (t *table) Contains(key ref.Val) ref.Val {
	k, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key)
	}
	_, found := t.fields.get(string(k))
	return types.Bool(found)
}

func (t *table) Size() ref.Val { return types.Int(len(t.fields.keys())) }

func (t *table) Iterator() traits.Iterator {
	return types.NewStringList(types.DefaultTypeAdapter, t.fields.keys()).Iterator()
}

func (t *table) Equal(ref.Val) ref.Val {
	return types.NewErr("a map of attributes compares with nothing")
}

func (t *table) ConvertToType(ref.Type) ref.Val {
	return types.NewErr("a map of attributes converts to nothing")
}

func (t *table) ConvertToNative(to reflect.Type) (any, error) {
	return nil, fmt.Errorf("a map of attributes does not convert to %v", to)
}

func (t *table) Type() ref.Type { return types.MapType }

func (t *table) Value() any { return t }

// headers are a header section: names in lower case, several values of one name joined by ", ", of Cookie by "; ". Looking up ignores case.
type headers struct{ h *exchange.Header }

func (h headers) get(name string) (ref.Val, bool) {
	v, ok := h.h.Joined(nil, name)
	return types.String(v), ok
}

func (h headers) keys() []string {
	names := make([]string, 0, h.h.Len())
	for _, f := range h.h.All() {
		name := make([]byte, len(f.Name))
		for i, c := range f.Name {
			name[i] = exchange.Lower(c)
		}
		names = append(names, string(name))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// claims are what decoding JSON gives. One that is missing reads as null.
type claims map[string]any

func (c claims) get(name string) (ref.Val, bool) {
	v, ok := c[name]
	if !ok {
		return types.NullValue, false
	}
	return adapter{}.NativeToValue(v), true
}

func (c claims) keys() []string {
	names := make([]string, 0, len(c))
	for n := range c {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// adapter makes values of cel from Go's; cel's own takes json.Number for a text.
type adapter struct{}

func (a adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return types.Int(n)
		}
		n, err := v.Float64()
		if err != nil {
			return types.NewErr("%q is not a number", string(v))
		}
		return types.Double(n)
	case []any:
		return types.NewDynamicList(a, v)
	case map[string]any:
		return types.NewStringInterfaceMap(a, v)
	}
	return types.DefaultTypeAdapter.NativeToValue(v)
}
