// Command sbom writes, as a CycloneDX document, what a program of ours was built
// from: what the Go linker left in the binary.
//
// It guarantees that every module in the binary is in the document, with its
// version and sum, and Go's own library; that there is no other; and that equal
// binaries give equal documents. It needs no network. It does not say what a binary
// does not tell: the licences of modules, and which of them needs which.
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"
	"github.com/package-url/packageurl-go"
)

func main() {
	if err := write(os.Stdout, strings.Join(os.Args[1:], " "), os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func write(out io.Writer, file, epoch string) error {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH is to be the time of the commit: %w", err)
	}
	binary, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(document(binary, info, time.Unix(seconds, 0)), cdx.SpecVersion1_6)
}

func document(binary []byte, info *debug.BuildInfo, made time.Time) *cdx.BOM {
	program := component(cdx.ComponentTypeApplication, &info.Main)
	program.Licenses = &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}}
	program.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sha256.Sum256(binary))}}
	for _, setting := range info.Settings {
		*program.Properties = append(*program.Properties, cdx.Property{Name: "go:build:" + setting.Key, Value: setting.Value})
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	var parts []cdx.Component
	var refs []string
	for _, module := range append([]*debug.Module{{Path: "stdlib", Version: version}}, info.Deps...) {
		parts = append(parts, component(cdx.ComponentTypeLibrary, module))
		refs = append(refs, parts[len(parts)-1].BOMRef)
	}
	parts[0].Licenses = &cdx.Licenses{{License: &cdx.License{ID: "BSD-3-Clause"}}}
	bom := cdx.NewBOM()
	bom.SerialNumber = uuid.NewHash(sha256.New(), uuid.Nil, binary, 8).URN()
	bom.Metadata = &cdx.Metadata{Timestamp: made.UTC().Format(time.RFC3339), Component: &program}
	bom.Components = &parts
	bom.Dependencies = &[]cdx.Dependency{{Ref: program.BOMRef, Dependencies: &refs}}
	return bom
}

// component is a module, or what replaced it. A hash of CycloneDX is that of a file,
// which Go's sum is not, so that is a property, as go.sum has it.
func component(kind cdx.ComponentType, module *debug.Module) cdx.Component {
	if module.Replace != nil {
		module = module.Replace
	}
	url := packageurl.NewPackageURL(packageurl.TypeGolang, strings.TrimSuffix(path.Dir(module.Path), "."), path.Base(module.Path), module.Version, nil, "").ToString()
	properties := []cdx.Property{}
	if module.Sum != "" {
		properties = append(properties, cdx.Property{Name: "go:sum", Value: module.Sum})
	}
	return cdx.Component{Type: kind, BOMRef: url, Name: module.Path, Version: module.Version, PackageURL: url, Properties: &properties}
}
