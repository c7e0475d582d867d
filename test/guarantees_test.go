// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that docs/guarantees.md names is there.
func TestGuaranteesNameTheirTests(t *testing.T) {
	page, err := os.ReadFile("../docs/guarantees.md")
	must(t, err)
	var files []string
	for _, pattern := range []string{"*_test.go", "../fallback/model/*_test.go", "../amqp/*_test.go"} {
		found, err := filepath.Glob(pattern)
		must(t, err)
		files = append(files, found...)
	}
	var source strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		source.Write(text)
	}
	names := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(page), -1)
	if len(names) < 20 {
		t.Errorf("the page names %d tests", len(names))
	}
	for _, name := range names {
		if !strings.Contains(source.String(), "\nfunc "+name[1]+"(t *testing.T)") {
			t.Errorf("there is no %s", name[1])
		}
	}
}
