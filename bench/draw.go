package main

import (
	"fmt"
	"hash/fnv"
	"image/color"
	"maps"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// frame is a node of a flame graph: how many samples have these callers.
type frame struct {
	name    string
	samples int
	callees map[string]*frame
}

func (f *frame) add(stack []string, n int) {
	f.samples += n
	if len(stack) == 0 {
		return
	}
	if f.callees == nil {
		f.callees = map[string]*frame{}
	}
	c := f.callees[stack[0]]
	if c == nil {
		c = &frame{name: stack[0]}
		f.callees[stack[0]] = c
	}
	c.add(stack[1:], n)
}

func (f *frame) depth(least int) int {
	deepest := 0
	for _, c := range f.callees {
		if c.samples >= least {
			deepest = max(deepest, c.depth(least))
		}
	}
	return 1 + deepest
}

// dull are frames that say nothing: every goroutine begins with them.
var dull = []string{"runtime.goexit", "[unknown]", "guarded", "gowrap", "runtime.mstart", "entry_SYSCALL", "do_syscall"}

func interesting(stack []string) (out []string) {
	for _, name := range stack {
		if !slices.ContainsFunc(dull, func(d string) bool { return strings.Contains(name, d) }) {
			out = append(out, short(name))
		}
	}
	return out
}

// short leaves out what packages' paths repeat.
func short(name string) string {
	name = name[strings.LastIndexByte(name, '/')+1:]
	return strings.TrimSuffix(strings.TrimSuffix(name, ".abi0"), ".isra.0")
}

const rowHeight = vg.Length(13)

// drawFlame draws a flame graph: callers below, callees above, width is time.
func drawFlame(s stacks, title, file string) error {
	root := &frame{name: title}
	for stack, n := range s {
		root.add(interesting(strings.Split(stack, ";")), n)
	}
	if root.samples == 0 {
		return fmt.Errorf("no samples for %s", title)
	}
	const width = vg.Length(720)
	least := max(root.samples/400, 1)
	height := rowHeight * vg.Length(root.depth(least))
	c := vgsvg.New(width, height)
	drawFrame(draw.New(c), root, root.samples, least, 0, width, 0)
	return saveCanvas(c, file)
}

func drawFrame(c draw.Canvas, f *frame, total, least int, x, width, y vg.Length) {
	style := draw.TextStyle{Color: color.White, Font: font.From(plot.DefaultFont, 8), Handler: plot.DefaultTextHandler}
	style.Font.Variant = "Sans"
	c.FillPolygon(tone(f.name), []vg.Point{{X: x, Y: y}, {X: x + width - 0.5, Y: y},
		{X: x + width - 0.5, Y: y + rowHeight - 0.5}, {X: x, Y: y + rowHeight - 0.5}})
	label := fmt.Sprintf("%s %.0f%%", f.name, 100*float64(f.samples)/float64(total))
	for len(label) > 0 && style.Width(label) > width-4 {
		label = label[:len(label)-1]
	}
	if len(label) > 3 {
		c.FillText(style, vg.Point{X: x + 2, Y: y + 3}, label)
	}
	for _, name := range slices.Sorted(maps.Keys(f.callees)) {
		callee := f.callees[name]
		w := width * vg.Length(callee.samples) / vg.Length(f.samples)
		if callee.samples >= least {
			drawFrame(c, callee, total, least, x, w, y+rowHeight)
		}
		x += w
	}
}

// tone gives a frame the colour of whose code it is, and a shade of its own.
func tone(name string) color.Color {
	h := fnv.New32a()
	h.Write([]byte(name))
	shade := uint8(h.Sum32() % 24)
	switch {
	case strings.HasPrefix(name, "amqp."), strings.HasPrefix(name, "main."), strings.HasPrefix(name, "fallback."), strings.Contains(name, "kea"):
		return color.RGBA{0x2b, 0x70 + shade, 0xc0, 0xff} // ours
	case strings.HasPrefix(name, "amqp091"), strings.HasPrefix(name, "binary."), strings.HasPrefix(name, "bufio."), strings.HasPrefix(name, "bytes."):
		return color.RGBA{0xc8, 0x58 + shade, 0x1a, 0xff} // the client library
	case strings.Contains(name, "."):
		return color.RGBA{0x8a, 0x50 + shade, 0xa8, 0xff} // Go's runtime and standard library
	default:
		return color.RGBA{0x5c + shade, 0x6c + shade, 0x5c, 0xff} // Redis, libc, the kernel
	}
}
