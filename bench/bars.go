// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// who is what a bar was measured on; it decides the bar's colour.
type who int

const (
	bare  who = iota // Redis without a module
	floor            // an empty module, or a plain publisher: what cannot be avoided
	ours
	peer // another way to the same end
)

// barGroup is a row of bars with one label.
type barGroup struct {
	label string
	bars  []bar
}

type bar struct {
	who    who
	figure string
	// over is the figure that the bar is divided by for the ratio at its end;
	// empty: no ratio is shown.
	over string
}

// barChart draws groups of horizontal bars, the first group on top: medians,
// with the smallest and the largest value as whiskers, and ratios at their ends.
type barChart struct {
	groups []barGroup
	rounds []figures
	style  text.Style
	max    float64
}

const barHeight = vg.Length(11)

// bars makes a plot of groups; legend names who the bars were measured on. It
// returns nil when a figure was not measured.
func bars(rounds []figures, title, unit string, legend map[who]string, groups []barGroup) *plot.Plot {
	p := newPlot(title, unit, "")
	c := &barChart{groups: groups, rounds: rounds}
	c.style = p.X.Tick.Label
	c.style.Font = font.From(plot.DefaultFont, 9)
	c.style.XAlign, c.style.YAlign = text.XLeft, text.YCenter
	labels := make([]string, len(groups))
	for i, g := range groups {
		// Room behind each label, for a reader's font that is wider than ours.
		labels[len(groups)-1-i] = g.label + strings.Repeat("\u00a0", 1+len(g.label)/5)
		for _, b := range g.bars {
			v := row{of: b.figure}.values(rounds)
			if len(v) == 0 {
				return nil
			}
			_, _, high := spread(v)
			c.max = max(c.max, high)
		}
	}
	p.Add(c)
	p.NominalY(labels...)
	p.X.Min, p.X.Max = 0, 1.65*c.max // room for ratios and the legend
	p.X.Tick.Marker = plainTicks{}
	p.Legend.TextStyle.Font = c.style.Font
	for _, w := range []who{bare, floor, ours, peer} {
		if legend[w] != "" {
			p.Legend.Add(legend[w]+"\u00a0\u00a0\u00a0", swatch{w.hue()})
		}
	}
	return p
}

func (w who) hue() color.Color { return []color.Color{ink, hues[1], hues[0], hues[2]}[w] }

// Plot implements [plot.Plotter].
func (c *barChart) Plot(canvas draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&canvas)
	for i, g := range c.groups {
		top := y(float64(len(c.groups)-1-i)) + barHeight*vg.Length(len(g.bars))/2
		for k, b := range g.bars {
			low, mid, high := spread(row{of: b.figure}.values(c.rounds))
			from, to := top-barHeight*vg.Length(k+1)+1, top-barHeight*vg.Length(k)-1
			canvas.FillPolygon(b.who.hue(), []vg.Point{{X: x(0), Y: from}, {X: x(mid), Y: from}, {X: x(mid), Y: to}, {X: x(0), Y: to}})
			middle := (from + to) / 2
			canvas.StrokeLine2(draw.LineStyle{Color: c.style.Color, Width: 1}, x(low), middle, x(high), middle)
			label := plain(mid)
			if ratio := (row{of: b.figure, over: b.over}).values(c.rounds); b.over != "" && len(ratio) > 0 {
				_, r, _ := spread(ratio)
				label += "  (" + strconv.FormatFloat(r, 'f', 2, 64) + "×)"
			}
			canvas.FillText(c.style, vg.Point{X: x(high) + 4, Y: middle}, label)
		}
	}
}

// DataRange implements [plot.DataRanger].
func (c *barChart) DataRange() (xmin, xmax, ymin, ymax float64) {
	return 0, c.max, -0.5, float64(len(c.groups)) - 0.5
}

type swatch struct{ color color.Color }

// Thumbnail implements [plot.Thumbnailer].
func (s swatch) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(s.color, []vg.Point{c.Min, {X: c.Max.X, Y: c.Min.Y}, c.Max, {X: c.Min.X, Y: c.Max.Y}})
}

// plainTicks are an axis's own ticks, labelled with plain numbers.
type plainTicks struct{ log bool }

// Ticks implements [plot.Ticker].
func (t plainTicks) Ticks(min, max float64) []plot.Tick {
	var ticks []plot.Tick
	if t.log {
		ticks = plot.LogTicks{Prec: -1}.Ticks(min, max)
	} else {
		ticks = plot.DefaultTicks{}.Ticks(min, max)
	}
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = plain(ticks[i].Value)
		}
	}
	return ticks
}

// plain writes a number as a reader would: thousands apart, and no more digits
// than mean something.
func plain(v float64) string {
	if v < 100 {
		return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
	}
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
