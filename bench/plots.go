package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours that are read on white and on black: no background, middle tones.
var (
	ink  = color.RGBA{0x7d, 0x7d, 0x7d, 0xff}
	hues = []color.Color{
		color.RGBA{0x2b, 0x83, 0xd6, 0xff}, color.RGBA{0xe0, 0x6c, 0x1f, 0xff},
		color.RGBA{0x2f, 0x9e, 0x54, 0xff}, color.RGBA{0xb0, 0x5c, 0xc8, 0xff},
	}
)

func newPlot(title, x, y string) *plot.Plot {
	plot.DefaultFont.Variant = "Sans"
	plotter.DefaultFont.Variant = "Sans"
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Color = ink
	p.Legend.TextStyle.Color = ink
	p.Legend.Top = true
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Label.Color, a.Tick.Color = ink, ink, ink, ink
	}
	return p
}

func save(p *plot.Plot, file string, width, height vg.Length) error {
	c := vgsvg.New(width, height)
	// A margin, for readers whose font is wider than ours.
	p.Draw(draw.Crop(draw.New(c), 12, -20, 6, -8))
	return saveCanvas(c, file)
}

func saveCanvas(c *vgsvg.Canvas, file string) error {
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return err
	}
	// Whatever sans-serif the reader has, if not the plotting library's.
	text := strings.ReplaceAll(b.String(), "font-family:Liberation Sans", "font-family:'Liberation Sans',Helvetica,Arial,sans-serif")
	return os.WriteFile(file, []byte(text), 0o644)
}

// bars draws medians, with the least and the most as whiskers.
func bars(rounds []figures, title, unit string, labels, names []string) *plot.Plot {
	p := newPlot(title, unit, "")
	p.X.Min = 0
	var values plotter.Values
	var whiskers whiskers
	for i, name := range names {
		v := row{of: name}.values(rounds)
		if len(v) == 0 {
			return nil
		}
		low, mid, high := spread(v)
		values = append(values, mid)
		whiskers.XYs = append(whiskers.XYs, plotter.XY{X: mid, Y: float64(i)})
		whiskers.XErrors = append(whiskers.XErrors, struct{ Low, High float64 }{mid - low, high - mid})
	}
	b, err := plotter.NewBarChart(values, vg.Points(14))
	if err != nil {
		panic(err)
	}
	b.Horizontal, b.Color, b.LineStyle.Width = true, hues[0], 0
	e, err := plotter.NewXErrorBars(whiskers)
	if err != nil {
		panic(err)
	}
	e.Color = ink
	p.Add(b, e)
	// Room behind each label, for a font wider than ours.
	roomy := make([]string, len(labels))
	for i, label := range labels {
		roomy[i] = label + strings.Repeat("\u00a0", 1+len(label)/5)
	}
	p.NominalY(roomy...)
	return p
}

type whiskers struct {
	plotter.XYs
	plotter.XErrors
}

// line is one curve: what is measured at each x, by name.
type line struct {
	label string
	at    map[float64]string
}

// curves draws medians over x.
func curves(rounds []figures, title, x, y string, lines []line, logY bool) *plot.Plot {
	p := newPlot(title, x, y)
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	if logY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	} else {
		p.Y.Min = 0
	}
	top := 0.0
	for i, l := range lines {
		var points plotter.XYs
		for _, at := range sorted(l.at) {
			if mid, ok := median(rounds, l.at[at]); ok && mid > 0 {
				points = append(points, plotter.XY{X: at, Y: mid})
				top = max(top, mid)
			}
		}
		if len(points) == 0 {
			return nil
		}
		curve, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			panic(err)
		}
		curve.Color, curve.Width = hues[i%len(hues)], vg.Points(1.5)
		dots.Color, dots.Shape = hues[i%len(hues)], draw.CircleGlyph{}
		p.Add(curve, dots)
		p.Legend.Add(l.label, curve, dots)
	}
	if !logY {
		p.Y.Min, p.Y.Max = 0, top*1.35 // room for the legend
	} else {
		p.Legend.Left = true
	}
	return p
}

func sorted(m map[float64]string) (keys []float64) {
	for k := range m {
		at := 0
		for at < len(keys) && keys[at] < k {
			at++
		}
		keys = append(keys[:at], append([]float64{k}, keys[at:]...)...)
	}
	return keys
}

// at makes a curve's points of a format for figures' names.
func at(values []int, format string) map[float64]string {
	m := map[float64]string{}
	for _, v := range values {
		m[float64(v)] = fmt.Sprintf(format, v)
	}
	return m
}

// drawAll draws every plot whose figures were measured, and tells their names.
func drawAll(rounds []figures, dir string) error {
	short := []string{"persistent, classic", "transient, classic", "quorum"}
	var rates, costs, labels []string
	for i, k := range kinds {
		for _, who := range []string{"plain", "module", "own codec, module"} {
			labels = append(labels, short[i]+": "+strings.TrimSuffix(who, ", module"))
			rates = append(rates, "delivery, "+k.name+", "+who+" events/s")
			costs = append(costs, "delivery, "+k.name+", "+who+" cost, us/event")
		}
	}
	var windowLines []line
	for i, k := range kinds {
		windowLines = append(windowLines, line{short[i], at(windowSizes, "window %d, "+k.name+", module events/s")})
	}
	mains := []string{"bare", "floor", "no mask", "1 mask, none matches", "100 masks, none matches",
		"captured, broker away", "native AKE", "bare, busy", "floor, busy", "captured, broker slower", "outbox"}
	var mainNames []string
	for _, m := range mains {
		mainNames = append(mainNames, m+" main thread, ns/SET")
	}
	for _, d := range []struct {
		file   string
		p      *plot.Plot
		height vg.Length
	}{
		{"main-thread", bars(rounds, "Redis's main thread", "CPU ns a SET", mains, mainNames), 290},
		{"delivery", bars(rounds, "Delivery", "events a second", labels, rates), 250},
		{"cost", bars(rounds, "Cost of delivery, Redis's main thread not counted", "CPU us an event", labels, costs), 250},
		{"latency", bars(rounds, "Latency, one at a time", "us", []string{"direct publish, median", "SET to message, median", "own codec, median",
			"direct publish, p99", "SET to message, p99", "own codec, p99"},
			[]string{"latency, direct p50, us", "latency, module p50, us", "latency, own codec, module p50, us",
				"latency, direct p99, us", "latency, module p99, us", "latency, own codec, module p99, us"}), 190},
		{"moderate", bars(rounds, "Moderate load", "CPU us an event", []string{"1,000/s: plain", "1,000/s: module", "1,000/s: own codec", "10,000/s: plain", "10,000/s: module", "10,000/s: own codec"},
			[]string{"moderate, 1000/s, plain cost, us/event", "moderate, 1000/s, module cost, us/event", "moderate, 1000/s, own codec, module cost, us/event",
				"moderate, 10000/s, plain cost, us/event", "moderate, 10000/s, module cost, us/event", "moderate, 10000/s, own codec, module cost, us/event"}), 190},
		{"growth-masks", curves(rounds, "Masks that match nothing", "masks", "main thread, CPU ns a SET", []line{
			{"prefixes", at(maskCounts, "growth, %d masks, prefixes main thread, ns/SET")},
			{"literals anywhere", at(maskCounts, "growth, %d masks, literals anywhere main thread, ns/SET")},
			{"with stars", at(maskCounts, "growth, %d masks, with stars main thread, ns/SET")}}, false), 230},
		{"growth-keys-main", curves(rounds, "Length of keys: main thread", "bytes", "CPU ns a SET", []line{
			{"bare", at(keySizes, "growth, keys of %d B, bare main thread, ns/SET")},
			{"filtered", at(keySizes, "growth, keys of %d B, filtered main thread, ns/SET")},
			{"stored", at(keySizes, "growth, keys of %d B, stored main thread, ns/SET")}}, false), 230},
		{"growth-keys-delivery", curves(rounds, "Length of keys: delivery", "bytes", "events a second", []line{
			{"plain", at(keySizes, "growth, keys of %d B, plain events/s")},
			{"module", at(keySizes, "growth, keys of %d B, module events/s")}}, false), 230},
		{"growth-keys-memory", curves(rounds, "Length of keys: memory of a stored event", "bytes", "bytes above the body", []line{
			{"module", at(keySizes, "growth, keys of %d B above the body, bytes/event")}}, false), 230},
		{"growth-list", curves(rounds, "Events in the list: time to drain", "events", "ms", []line{
			{"connect to last confirm", at(listLengths, "growth, list of %d drained in, ms")}}, true), 230},
		{"windows", curves(rounds, "max_inflight", "events in flight", "events a second", windowLines, false), 230},
		{"buffers", curves(rounds, "buffer_limit", "MiB", "SETs a second under overload", []line{
			{"module", at(bufferSizes, "buffer %d MiB SETs/s")}}, false), 230},
	} {
		if d.p == nil {
			continue
		}
		if err := save(d.p, filepath.Join(dir, d.file+".svg"), 460, d.height); err != nil {
			return err
		}
	}
	return nil
}
