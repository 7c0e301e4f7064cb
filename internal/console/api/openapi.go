package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"davit.dev/davit/internal/console/document"
	"davit.dev/davit/internal/version"
)

// Describe is the OpenAPI description of the API, made of the routes
// themselves, and of the schemas that clusters are given.
func Describe() (map[string]any, error) {
	d := describer{schemas: map[string]any{}}
	paths := map[string]any{}
	for _, rt := range routes() {
		operations, _ := paths[Prefix+rt.path].(map[string]any)
		if operations == nil {
			operations = map[string]any{}
			paths[Prefix+rt.path] = operations
		}
		operations[strings.ToLower(rt.method)] = d.operation(rt)
	}
	for _, k := range document.Kinds() {
		raw, err := k.Schema()
		if err != nil {
			return nil, err
		}
		d.schemas[k.Name] = raw
	}
	return map[string]any{
		"openapi":    "3.1.0",
		"info":       map[string]any{"title": "Davit console", "version": version.String(), "description": "docs/console.md tells how it is used. kind is one of applications, protectionpolicies, recoveryplans; their schemas are below under their names."},
		"paths":      paths,
		"components": map[string]any{"schemas": d.schemas, "securitySchemes": map[string]any{"bearer": map[string]any{"type": "http", "scheme": "bearer", "description": "a session of POST /login, or a robot's token"}}},
		"security":   []any{map[string]any{"bearer": []any{}}},
	}, nil
}

type describer struct{ schemas map[string]any }

func (d describer) operation(rt route) map[string]any {
	code := "200"
	if rt.method == "POST" && rt.in != nil {
		code = "201"
	}
	o := map[string]any{
		"summary": rt.summary,
		"responses": map[string]any{
			code:      map[string]any{"description": "done", "content": content(d.schema(reflect.TypeOf(rt.out)))},
			"default": map[string]any{"description": "what is wrong", "content": content(d.schema(reflect.TypeOf(status{})))},
		},
	}
	if rt.need != "" {
		o["description"] = "Takes the permission " + string(rt.need) + "."
	}
	if rt.open {
		o["security"] = []any{}
	}
	if rt.in != nil {
		o["requestBody"] = map[string]any{"required": true, "content": content(d.schema(reflect.TypeOf(rt.in)))}
	}
	parameters := []any{}
	for segment := range strings.SplitSeq(rt.path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			parameters = append(parameters, map[string]any{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": text})
		}
	}
	for _, p := range rt.query {
		parameters = append(parameters, map[string]any{"name": p.name, "in": "query", "description": p.says, "schema": text})
	}
	if len(parameters) > 0 {
		o["parameters"] = parameters
	}
	return o
}

var text = map[string]any{"type": "string"}

func content(schema any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

// schema describes a Go type as it is written in JSON.
func (d describer) schema(t reflect.Type) any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return map[string]any{"type": "object"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return map[string]any{"type": "object"}
		}
		return map[string]any{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.String:
		return text
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Int32:
		return map[string]any{"type": "integer"}
	case reflect.Struct:
		return d.structure(t)
	}
	panic(fmt.Sprintf("the description has no word for %s", t))
}

func (d describer) structure(t reflect.Type) any {
	name := t.Name()
	if t.PkgPath() != reflect.TypeFor[describer]().PkgPath() {
		parts := strings.Split(t.PkgPath(), "/")
		name = parts[len(parts)-1] + "." + name
	}
	reference := map[string]any{"$ref": "#/components/schemas/" + name}
	if _, known := d.schemas[name]; known {
		return reference
	}
	properties := map[string]any{}
	d.schemas[name] = map[string]any{"type": "object", "properties": properties}
	d.fields(t, properties)
	return reference
}

func (d describer) fields(t reflect.Type, into map[string]any) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			d.fields(f.Type, into)
		case name != "" && name != "-":
			into[name] = d.schema(f.Type)
		}
	}
}
