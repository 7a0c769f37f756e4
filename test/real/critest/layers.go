package critest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Layers are the parts of critest's images that Go programs cannot be.
type Layers struct {
	Busybox, Nginx, Httpd []byte // plain tar files; the others lie on the first
	Versions              string // what they were made from, for a reader
}

// The files in the cache. The last says that the others are whole.
const (
	busyboxFile  = "busybox.tar"
	nginxFile    = "nginx.tar"
	httpdFile    = "httpd.tar"
	versionsFile = "versions"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
	group  = "root:x:0:\nwww-data:x:33:\nusers:x:100:\nnobody:x:65534:\n"
)

const nginxConfig = `daemon off;
user www-data;
pid /var/run/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen %d;
    return 200 "nginx\n";
  }
}
`

// httpdConfig runs no threads: to end one, glibc loads a library that no
// program names.
const httpdConfig = `ServerRoot /etc
ServerName localhost
Listen 80
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
DefaultRuntimeDir /var/run
PidFile /var/run/httpd.pid
ErrorLog /dev/stderr
User www-data
Group www-data
DocumentRoot /var/www
DirectoryIndex index.html
`

// busyboxSettings are the differences to upstream's defaults: one file for
// every image, and without an applet that newer kernel headers do not compile.
func busyboxSettings() map[string]string {
	return map[string]string{"CONFIG_STATIC": "y", "CONFIG_TC": "n"}
}

// EnsureLayers takes the layers from the user's cache, or makes them there:
// busybox from Debian's source with upstream's default settings, nginx and
// Apache from Debian's packages. It needs `deps.sh conformance`, once a network
// with Debian's packages, and a minute or two.
func EnsureLayers(ctx context.Context, cache string, progress io.Writer) (Layers, error) {
	final := filepath.Join(cache, "critest-images", "bookworm-"+recipe())
	if _, err := os.Stat(filepath.Join(final, versionsFile)); err != nil {
		begin := time.Now()
		fmt.Fprintln(progress, "building critest's images (busybox, nginx, httpd) …")
		if err := makeLayers(ctx, final); err != nil {
			return Layers{}, fmt.Errorf("make critest's images: %w", err)
		}
		fmt.Fprintf(progress, "built    critest's images in %s\n", time.Since(begin).Round(time.Second))
	}
	return readLayers(final)
}

// recipe is a hash of all that decides about the layers but Debian's own
// updates.
func recipe() string {
	sum := sha256.New()
	fmt.Fprintln(sum, 1, runtime.GOARCH, sources, passwd, group, nginxConfig, httpdConfig, busyboxSettings())
	return hex.EncodeToString(sum.Sum(nil))[:12]
}

func readLayers(folder string) (layers Layers, err error) {
	var versions []byte
	for name, content := range map[string]*[]byte{
		busyboxFile: &layers.Busybox, nginxFile: &layers.Nginx, httpdFile: &layers.Httpd, versionsFile: &versions,
	} {
		if *content, err = os.ReadFile(filepath.Join(folder, name)); err != nil {
			return Layers{}, err
		}
	}
	layers.Versions = string(versions)
	return layers, nil
}

// makeLayers works in a folder beside the final one and puts the result in
// place by one rename.
func makeLayers(ctx context.Context, final string) (err error) {
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(final), ".build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	d, err := newDebian(ctx, scratch)
	if err != nil {
		return err
	}
	result := filepath.Join(scratch, "result")
	if err := os.Mkdir(result, 0o755); err != nil {
		return err
	}
	if err := d.makeAll(ctx, result); err != nil {
		return err
	}
	if err := os.Rename(result, final); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (d debian) makeAll(ctx context.Context, result string) error {
	folder, err := d.source(ctx, "busybox")
	if err != nil {
		return err
	}
	if err := d.unpack(ctx, "nginx", "apache2-bin"); err != nil {
		return err
	}
	nginx, err := d.version("nginx")
	if err != nil {
		return err
	}
	apache, err := d.version("apache2-bin")
	if err != nil {
		return err
	}
	for name, build := range map[string]func() ([]byte, error){
		busyboxFile: func() ([]byte, error) { return d.busybox(ctx, folder) }, nginxFile: d.nginx, httpdFile: d.httpd,
	} {
		content, err := build()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(result, name), content, 0o644); err != nil {
			return err
		}
	}
	versions := fmt.Sprintf("%s, nginx %s, Apache %s", strings.Replace(filepath.Base(folder), "-", " ", 1), nginx, apache)
	return os.WriteFile(filepath.Join(result, versionsFile), []byte(versions), 0o644)
}

// busybox compiles it and links it under each of its names. The links are hard:
// masking one of them must not mask the program.
func (d debian) busybox(ctx context.Context, folder string) ([]byte, error) {
	if err := d.run(ctx, "make", "-C", folder, "defconfig"); err != nil {
		return nil, err
	}
	if err := configure(filepath.Join(folder, ".config")); err != nil {
		return nil, err
	}
	if err := d.run(ctx, "make", "-C", folder, "-j", strconv.Itoa(runtime.NumCPU()), "busybox"); err != nil {
		return nil, err
	}
	program := filepath.Join(folder, "busybox")
	names, err := exec.CommandContext(ctx, program, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("ask busybox for its names: %w", err)
	}
	l := newLayer()
	l.copy("bin/busybox", 0o755, program)
	for name := range strings.FieldsSeq(string(names)) {
		l.link(name, "bin/busybox")
	}
	for _, name := range []string{"root", "home", "var/run", "var/www"} {
		l.folder(name, 0o755)
	}
	l.folder("tmp", 0o1777)
	l.file("etc/passwd", 0o644, []byte(passwd))
	l.file("etc/group", 0o644, []byte(group))
	return l.bytes()
}

// configure changes busybox's settings.
func configure(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for name, value := range busyboxSettings() {
		line := regexp.MustCompile(`(?m)^(# ` + name + ` is not set|` + name + `=.*)$`)
		if !line.Match(content) {
			return fmt.Errorf("busybox has no setting %s", name)
		}
		content = line.ReplaceAll(content, []byte(name+"="+value))
	}
	return os.WriteFile(file, content, 0o644)
}

func (d debian) nginx() ([]byte, error) {
	l, program := newLayer(), filepath.Join(d.tree(), "usr/sbin/nginx")
	l.copy("usr/sbin/nginx", 0o755, program)
	l.file("etc/nginx/nginx.conf", 0o644, fmt.Appendf(nil, nginxConfig, webPort))
	l.file("etc/nginx/host.conf", 0o644, fmt.Appendf(nil, nginxConfig, hostPort))
	return d.finish(l, program)
}

// httpd is Apache under upstream's name for it, which critest looks for in its
// log.
func (d debian) httpd() ([]byte, error) {
	l, programs := newLayer(), []string{filepath.Join(d.tree(), "usr/sbin/apache2")}
	l.copy("usr/sbin/httpd", 0o755, programs[0])
	for _, module := range []string{"mpm_prefork", "authz_core", "dir"} {
		name := "usr/lib/apache2/modules/mod_" + module + ".so"
		programs = append(programs, filepath.Join(d.tree(), name))
		l.copy(name, 0o644, filepath.Join(d.tree(), name))
	}
	l.file("etc/httpd.conf", 0o644, []byte(httpdConfig))
	l.file("etc/mime.types", 0o644, nil)
	l.file("var/www/index.html", 0o644, []byte("httpd\n"))
	return d.finish(l, programs...)
}

// finish adds the libraries of the programs.
func (d debian) finish(l *layer, programs ...string) ([]byte, error) {
	libraries, err := d.libraries(programs...)
	if err != nil {
		return nil, err
	}
	for name, file := range libraries {
		l.copy(name, 0o755, file)
	}
	return l.bytes()
}
