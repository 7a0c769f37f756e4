package kubelet

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	runtimeFlag = "container-runtime-endpoint"
	imageFlag   = "image-service-endpoint"
	runtimeKey  = "containerRuntimeEndpoint"
	imageKey    = "imageServiceEndpoint"
)

var errByHand = errors.New("change it by hand")

// EditConfig returns the text of a KubeletConfiguration with another runtime
// endpoint. One for images of its own is led there too, since the kubelet would
// go on pulling past the new one. Nothing else changes; a file in which that
// cannot be done is an error.
func EditConfig(text []byte, endpoint string) ([]byte, error) {
	before, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("not a KubeletConfiguration: %w", err)
	}
	edited := replaceKey(text, runtimeKey, endpoint)
	if image, ok := before[imageKey].(string); ok && image != "" {
		edited = replaceKey(edited, imageKey, endpoint)
		before[imageKey] = endpoint
	}
	before[runtimeKey] = endpoint
	after, err := decode(edited)
	if err != nil || !reflect.DeepEqual(before, after) {
		return nil, fmt.Errorf("%s cannot be set to %s without changing the rest of the file: %w", runtimeKey, endpoint, errByHand)
	}
	return edited, nil
}

func decode(text []byte) (map[string]any, error) {
	values := map[string]any{}
	err := yaml.Unmarshal(text, &values)
	if values == nil { // The file is a null.
		values = map[string]any{}
	}
	return values, err
}

// replaceKey changes the value of a key at the top in its place, or adds a line.
func replaceKey(text []byte, key, value string) []byte {
	node := valueOf(text, key)
	if node == nil {
		return appendLine(text, key+": "+value)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	if node.Line > len(lines) {
		return text // EditConfig sees that nothing happened.
	}
	line := lines[node.Line-1]
	start := min(node.Column-1, len(line))
	old, replacement := rawScalar(node), rawValue(node, value)
	if !bytes.HasPrefix(line[start:], []byte(old)) {
		return text
	}
	lines[node.Line-1] = append(append(append([]byte{}, line[:start]...), replacement...), line[start+len(old):]...)
	return bytes.Join(lines, nil)
}

// valueOf finds the value of a key at the top of the document.
func valueOf(text []byte, key string) *yaml.Node {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil || len(document.Content) == 0 {
		return nil
	}
	pairs := document.Content[0].Content
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i].Value == key {
			return pairs[i+1]
		}
	}
	return nil
}

// rawScalar is how a value of one line, without escapes, stands in the file.
func rawScalar(node *yaml.Node) string { return rawValue(node, node.Value) }

func rawValue(node *yaml.Node, value string) string {
	switch {
	case node.Style&yaml.DoubleQuotedStyle != 0:
		return strconv.Quote(value)
	case node.Style&yaml.SingleQuotedStyle != 0:
		return "'" + value + "'"
	}
	return value
}

func appendLine(text []byte, line string) []byte {
	edited := append([]byte{}, text...)
	if len(edited) > 0 && !bytes.HasSuffix(edited, []byte("\n")) {
		edited = append(edited, '\n')
	}
	return append(edited, line+"\n"...)
}

// EditFlags returns the text of a file of flags with another runtime endpoint, for
// images as well, where one is set. A file that sets none comes back as it is.
func EditFlags(text []byte, endpoint string) []byte {
	pattern := regexp.MustCompile(`(--(?:` + runtimeFlag + `|` + imageFlag + `)(?:=|[ \t]+))[^\s"']+`)
	replacement := []byte("${1}" + strings.ReplaceAll(endpoint, "$", "$$"))
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i, line := range lines {
		if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			lines[i] = pattern.ReplaceAll(line, replacement)
		}
	}
	return bytes.Join(lines, nil)
}
