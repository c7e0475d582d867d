// SPDX-License-Identifier: BSD-3-Clause

// Package makes the module's .deb and .rpm from what `make install` installs,
// so that there is one list of files. It is a Go module of its own: nothing
// that it needs is needed by the module.
package main

import (
	"compress/gzip"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// name follows Debian's and Fedora's redis-<module>; Debian allows no
// underscore.
const name = "redis-key-evt-amqp"

// target is one package format and where its distributions keep things.
type target struct {
	format string
	// modules: Debian's redis-redisearch has its file in /usr/lib/redis/modules,
	// and Debian's redis-server.service lets the server map executable files
	// from /usr/lib and /lib only (ExecPaths). Fedora's macro redis_modules_dir
	// is %{_libdir}/redis/modules; _libdir is /usr/lib64 on 64 bits.
	modules    string
	license    string // where the licence has to be
	libc       string // %s: the oldest C library that has all that we use
	recommends []string
	suggests   []string
}

// A server is recommended, not required: it may be of another origin, and be
// Redis or Valkey.
var targets = []target{
	{
		format: "deb", modules: "/usr/lib/redis/modules",
		license:    "/usr/share/doc/" + name + "/copyright",
		libc:       "libc6 (>= %s)",
		recommends: []string{"redis-server (>= 5:7.0) | valkey-server"},
		suggests:   []string{"rabbitmq-server", "prometheus-redis-exporter"},
	},
	{
		format: "rpm", modules: "/usr/lib64/redis/modules",
		license:    "/usr/share/licenses/" + name + "/LICENSE",
		libc:       "libc.so.6(GLIBC_%s)(64bit)",
		recommends: []string{"redis >= 7.0"},
		suggests:   []string{"rabbitmq-server"},
	},
}

func main() {
	root := flag.String("root", "../..", "the source tree")
	module := flag.String("module", "../../build/libredis_keyspace_amqp.so", "the built module")
	out := flag.String("out", "../../build/package", "folder for the packages")
	flag.Parse()
	for _, t := range targets {
		path, err := t.build(*root, *module, *out)
		if err != nil {
			fmt.Fprintf(os.Stderr, "package: %s: %v\n", t.format, err)
			os.Exit(1)
		}
		fmt.Println(path)
	}
}

func (t target) build(root, module, out string) (string, error) {
	version, err := version(filepath.Join(root, "c/module.h"))
	if err != nil {
		return "", err
	}
	arch, libc, err := needs(module)
	if err != nil {
		return "", err
	}
	when, err := timestamp()
	if err != nil {
		return "", err
	}
	stage, err := os.MkdirTemp("", "kea-package-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(stage)
	contents, err := t.install(root, module, stage)
	if err != nil {
		return "", err
	}
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: name, Arch: arch, Version: version, Release: "1",
		Section: "database", Priority: "optional",
		Maintainer:  "The key_evt_amqp authors",
		Homepage:    "https://github.com/key-evt-amqp/key_evt_amqp",
		License:     "BSD-3-Clause",
		MTime:       when,
		Description: t.description(),
		Overridables: nfpm.Overridables{
			Depends: []string{fmt.Sprintf(t.libc, libc)}, Recommends: t.recommends, Suggests: t.suggests,
			Contents: contents, Umask: 0o022,
			// The building machine's name would make each package another one.
			RPM: nfpm.RPM{Group: "Applications/Databases", Summary: summary, BuildHost: "localhost"},
		},
	})
	if err := nfpm.PrepareForPackager(info, t.format); err != nil {
		return "", err
	}
	packager, err := nfpm.Get(t.format)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(out, packager.ConventionalFileName(info))
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(packager.Package(info, f), f.Close())
}

const summary = "Redis module that forwards keyspace events to RabbitMQ"

// description: a .deb has the summary as its first line, an .rpm on its own.
func (t target) description() string {
	text := `Catches keyspace events inside redis-server or valkey-server and forwards
them to RabbitMQ (AMQP 0-9-1) with publisher confirms: at least once, in
order, losing none while the broker is away.`
	if t.format == "deb" {
		return summary + "\n" + text
	}
	return text
}

// install runs `make install` into the stage and lists what is there now.
func (t target) install(root, module, stage string) (contents files.Contents, err error) {
	doc := "/usr/share/doc/" + name
	module, err = filepath.Abs(module)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("make", "--no-print-directory", "-C", root, "install",
		"BUILD="+filepath.Dir(module), "DESTDIR="+stage, "PREFIX=/usr", "MODULEDIR="+t.modules, "DOCDIR="+doc)
	// Flags of the make that runs us are not for this one.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make install: %w\n%s", err, out)
	}
	err = filepath.WalkDir(stage, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		at := strings.TrimPrefix(path, stage)
		kind := files.TypeFile
		switch {
		case at == doc+"/LICENSE":
			at, kind = t.license, files.TypeRPMLicense
		case strings.HasPrefix(at, "/usr/share/man/"):
			if path, err = compress(path); err != nil {
				return err
			}
			at += ".gz"
		case strings.HasPrefix(at, doc+"/"):
			kind = files.TypeRPMDoc
		}
		if t.format != "rpm" {
			kind = files.TypeFile
		}
		contents = append(contents, &files.Content{Source: path, Destination: at, Type: kind,
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: info.Mode().Perm()}})
		return nil
	})
	// The folders that only we use go with us.
	for dir := range dirsBelow(contents, doc, filepath.Dir(t.license)) {
		contents = append(contents, &files.Content{Destination: dir, Type: files.TypeDir,
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: 0o755}})
	}
	sort.Slice(contents, func(i, j int) bool { return contents[i].Destination < contents[j].Destination })
	return contents, err
}

func dirsBelow(contents files.Contents, tops ...string) map[string]bool {
	dirs := map[string]bool{}
	for _, c := range contents {
		for _, top := range tops {
			for dir := filepath.Dir(c.Destination); dir == top || strings.HasPrefix(dir, top+"/"); dir = filepath.Dir(dir) {
				dirs[dir] = true
			}
		}
	}
	return dirs
}

// compress writes path.gz, with no name and time in it: the same input gives
// the same package.
func compress(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	f, err := os.Create(path + ".gz")
	if err != nil {
		return "", err
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	_, err = z.Write(text)
	// The walk does not come by the new file: it has read its folder already.
	return f.Name(), errors.Join(err, z.Close(), f.Close(), os.Remove(path))
}

var versionLine = regexp.MustCompile(`(?m)^#define KEA_VERSION (\d+)$`)

// version is the one that the module itself reports.
func version(header string) (string, error) {
	text, err := os.ReadFile(header)
	if err != nil {
		return "", err
	}
	m := versionLine.FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("%s has no KEA_VERSION", header)
	}
	n, err := strconv.Atoi(string(m[1]))
	return fmt.Sprintf("%d.%d.%d", n/10000, n/100%100, n%100), err
}

// needs reads from the file which processor it is for, and the newest symbol
// version of the C library that it asks for.
func needs(module string) (arch, libc string, err error) {
	f, err := elf.Open(module)
	if err != nil {
		return "", "", fmt.Errorf("%w (make builds it)", err)
	}
	defer f.Close()
	switch f.Machine {
	case elf.EM_X86_64:
		arch = "amd64"
	case elf.EM_AARCH64:
		arch = "arm64"
	default:
		return "", "", fmt.Errorf("%s: no packages for %v", module, f.Machine)
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		return "", "", err
	}
	var newest [2]int
	for _, s := range symbols {
		var v [2]int
		if n, _ := fmt.Sscanf(s.Version, "GLIBC_%d.%d", &v[0], &v[1]); n < 2 {
			continue
		}
		if v[0] > newest[0] || v[0] == newest[0] && v[1] > newest[1] {
			newest = v
		}
	}
	if newest == [2]int{} {
		return "", "", fmt.Errorf("%s asks nothing of the C library", module)
	}
	return arch, fmt.Sprintf("%d.%d", newest[0], newest[1]), nil
}

// timestamp is SOURCE_DATE_EPOCH where a reproducible build sets it.
func timestamp() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Now(), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(n, 0).UTC(), nil
}
