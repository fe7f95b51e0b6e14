package pgbin

import (
	"archive/tar"
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/ulikunitz/xz"
)

// unpack writes the files of the build's archive into dir. It writes nothing outside of
// dir, whatever the archive contains.
func (b Build) unpack(ctx context.Context, archive, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	z, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer func() { _ = z.Close() }()
	if b.wheel != "" {
		return unpackZip(ctx, &z.Reader, root)
	}
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, ".txz") {
			return unpackTarXZ(ctx, f, root)
		}
	}
	return errors.New("unpack: the jar holds no .txz")
}

func unpackZip(ctx context.Context, z *zip.Reader, root *os.Root) error {
	for _, f := range z.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.FileInfo().IsDir() {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return fmt.Errorf("unpack %s: %w", f.Name, err)
		}
		err = writeFile(root, f.Name, r, f.Mode())
		_ = r.Close()
		if err != nil {
			return fmt.Errorf("unpack %s: %w", f.Name, err)
		}
	}
	return nil
}

func unpackTarXZ(ctx context.Context, f *zip.File, root *os.Root) error {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("unpack %s: %w", f.Name, err)
	}
	defer func() { _ = r.Close() }()
	plain, err := xz.NewReader(r)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", f.Name, err)
	}
	entries := tar.NewReader(plain)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", f.Name, err)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			err = writeFile(root, name, entries, h.FileInfo().Mode())
		case tar.TypeSymlink:
			if err = mkdirs(root, path.Dir(name)); err == nil {
				err = root.Symlink(h.Linkname, name)
			}
		case tar.TypeLink:
			if err = mkdirs(root, path.Dir(name)); err == nil {
				err = root.Link(path.Clean(h.Linkname), name)
			}
		case tar.TypeDir:
		default:
			err = fmt.Errorf("unknown kind of entry %q", h.Typeflag)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

// writeFile writes a file that all users may read, and execute if its owner may: if
// root downloads, another account runs the server.
func writeFile(root *os.Root, name string, r io.Reader, mode fs.FileMode) error {
	if err := mkdirs(root, path.Dir(name)); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode.Perm()&0o100 != 0 {
		perm = 0o755
	}
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if err == nil {
		err = w.Chmod(perm) // whatever the umask
	}
	if closed := w.Close(); err == nil {
		err = closed
	}
	return err
}

// mkdirs creates a folder and its parents, open to all users whatever the umask.
func mkdirs(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if _, err := root.Stat(dir); err == nil {
		return nil
	}
	if err := mkdirs(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return root.Chmod(dir, 0o755)
}
