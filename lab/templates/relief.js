// A surface in its box, for turn.js: see lab/turn.py, which writes the data. The middle of the box is 0; x, y and z go
// over its sides, half of them to either hand. Cells are painted from far to near, column by column. That hides what is
// behind: along a line of sight, columns and rows go away from those of the eye.
const INK = "#1b1f24", SOFT = "#5a6470", FONT = 'system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif';
const FAR = 4.5; // of the eye from the middle of the box, whose longer side is 1
const clamp = (v, low, high) => Math.min(high, Math.max(low, v));

// ------------------------------------------------------------------------------------------------------------ the data
function unpacked(text, low, high) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return Float64Array.from({ length: bytes.length / 2 }, (_, k) => {
    const code = bytes[2 * k] + 256 * bytes[2 * k + 1];
    return code === 65535 ? NaN : low + code / 65534 * (high - low);
  });
}

function prepared(given) {
  const p = { ...given, nx: given.x[2], ny: given.y[2] };
  p.z = unpacked(given.z, -p.sides[2] / 2, p.sides[2] / 2);
  p.paths = given.paths.map(path => {
    const [xs, ys] = ["x", "y"].map((axis, k) => unpacked(path[axis], -p.sides[k] / 2, p.sides[k] / 2));
    return { ...path, points: Array.from(xs, (x, k) => [x, ys[k], height(p, x, ys[k])]) };
  });
  return p;
}

function height(p, x, y) { // between four values; NaN outside and in holes
  const u = (x / p.sides[0] + 0.5) * (p.nx - 1), v = (y / p.sides[1] + 0.5) * (p.ny - 1);
  if (!(Math.min(u, v, p.nx - 1 - u, p.ny - 1 - v) > -1e-6)) return NaN;
  const i = clamp(Math.floor(u), 0, p.nx - 2), j = clamp(Math.floor(v), 0, p.ny - 2), a = u - i, b = v - j;
  const weighted = (w, k) => Math.abs(w) > 1e-6 ? w * p.z[k] : 0, at = j * p.nx + i;
  return weighted((1 - a) * (1 - b), at) + weighted(a * (1 - b), at + 1)
    + weighted((1 - a) * b, at + p.nx) + weighted(a * b, at + p.nx + 1);
}

// Cells that are parts of a step between values, so that colours change little from one to the next; about so many.
function mesh(p, cells, levels) {
  const parts = clamp(Math.floor(Math.sqrt(cells / (p.nx * p.ny))), 1, 4);
  const [A, B] = p.sides, fx = (p.nx - 1) * parts + 1, fy = (p.ny - 1) * parts + 1;
  const xs = Float64Array.from({ length: fx }, (_, i) => (i / (fx - 1) - 0.5) * A);
  const ys = Float64Array.from({ length: fy }, (_, j) => (j / (fy - 1) - 0.5) * B);
  const zs = Float64Array.from({ length: fx * fy }, (_, k) => height(p, xs[k % fx], ys[Math.floor(k / fx)]));
  const normals = new Float64Array(3 * fx * fy).fill(NaN); // of the cell right of and above a point; NaN: a hole
  for (let j = 0; j < fy - 1; j++) for (let i = 0; i < fx - 1; i++) {
    const k = j * fx + i, [a, b, c, d] = [zs[k], zs[k + 1], zs[k + fx], zs[k + fx + 1]];
    const sx = (b - a + d - c) / 2 * (fx - 1) / A, sy = (c - a + d - b) / 2 * (fy - 1) / B;
    const size = Math.hypot(sx, sy, 1);
    normals.set([-sx / size, -sy / size, 1 / size], 3 * k);
  }
  const found = { fx, fy, xs, ys, zs, normals, X: new Float64Array(fx * fy), Y: new Float64Array(fx * fy) };
  return { ...found, lines: contours(found, levels) };
}

function contours({ fx, fy, xs, ys, zs }, levels) { // pieces of lines of equal height, by cell: [x, y, x', y', z, ...]
  const corners = (i, j, k) => [[i, j, k], [i + 1, j, k + 1], [i + 1, j + 1, k + fx + 1], [i, j + 1, k + fx]];
  const lines = new Array(fx * fy);
  for (let j = 0; j < fy - 1; j++) for (let i = 0; i < fx - 1; i++) {
    const k = j * fx + i, four = corners(i, j, k);
    for (const z of levels) {
      const hits = [];
      for (let e = 0; e < 4; e++) {
        const [a, b] = [four[e], four[(e + 1) % 4]], up = zs[a[2]] - z, down = zs[b[2]] - z;
        if (up < 0 !== down < 0) {
          const t = up / (up - down);
          hits.push(xs[a[0]] + t * (xs[b[0]] - xs[a[0]]), ys[a[1]] + t * (ys[b[1]] - ys[a[1]]));
        }
      }
      for (let h = 0; h + 3 < hits.length; h += 4) (lines[k] ||= []).push(...hits.slice(h, h + 4), z);
    }
  }
  return lines;
}

// ------------------------------------------------------------------------------------------------------------- numbers
function said(v) {
  const size = Math.abs(v);
  const long = size && (size < 1e-3 || size >= 1e5);
  const text = long ? v.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e") : `${+v.toPrecision(4)}`;
  return text.replace(/-/g, "\u2212");
}

function ticks(low, high, count) { // [[value, text], ...]
  const rough = (high - low) / count, ten = 10 ** Math.floor(Math.log10(rough));
  const step = ten * [1, 2, 5, 10].find(s => s * ten >= rough * 0.999), found = [];
  for (let k = Math.ceil(low / step - 1e-6); k * step <= high + 1e-6 * step; k++) {
    found.push([k * step, said(k * step)]);
  }
  return found;
}

function powers(low, high, count) { // of a logarithmic scale, whose values are exponents
  if (high - low < 0.5) return ticks(10 ** low, 10 ** high, count).map(([v, text]) => [Math.log10(v), text]);
  const most = Math.ceil((high - low) / count), found = [];
  for (let e = Math.floor(low); e <= high; e++) for (const digit of high - low < 3 ? [1, 2, 5] : [1]) {
    const at = e + Math.log10(digit);
    if (e % most === 0 && at >= low - 1e-9 && at <= high + 1e-9) found.push([at, said(digit * 10 ** e)]);
  }
  return found;
}

// ---------------------------------------------------------------------------------------------------------- the camera
function camera(p, view, box) {
  const a = view.azimuth * Math.PI / 180, e = view.elevation * Math.PI / 180;
  const right = [-Math.sin(a), Math.cos(a), 0];
  const up = [-Math.sin(e) * Math.cos(a), -Math.sin(e) * Math.sin(a), Math.cos(e)];
  const toward = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)], eye = toward.map(v => FAR * v);
  const wide = Math.hypot(p.sides[0], p.sides[1]) / 2, cx = box.x + box.w / 2, cy = box.y + box.h / 2 + 1;
  const zoom = 0.96 * view.zoom * Math.min((box.w - 76) / (2 * wide), (box.h - 92) / (1.72 * wide));
  const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
  return {
    eye, right, up, toward,
    see(x, y, z) { // [to the right, down, away from the eye]
      const q = [x, y, z], w = FAR - dot(toward, q), f = zoom * FAR / w;
      return [cx + f * dot(right, q), cy - f * dot(up, q), w];
    },
    at(X, Y, w) { // the point that is seen there
      const f = zoom * FAR / w, h = (X - cx) / f, v = (cy - Y) / f;
      return [0, 1, 2].map(k => toward[k] * (FAR - w) + right[k] * h + up[k] * v);
    },
  };
}

// Where a line of sight meets the surface between two distances: [x, y, z], or nothing. start > 0: it begins above it.
function first(p, cam, X, Y, from, to, steps, start = NaN) {
  let before = start, last = cam.at(X, Y, from);
  for (let s = 0; s <= steps; s++) {
    const q = cam.at(X, Y, from + s / steps * (to - from)), gap = q[2] - height(p, q[0], q[1]);
    if (gap * before <= 0) {
      const t = before / (before - gap), [x, y] = [0, 1].map(k => last[k] + t * (q[k] - last[k]));
      return [x, y, height(p, x, y)];
    }
    before = gap; last = q;
  }
}

// --------------------------------------------------------------------------------------------------------------- paint
function floor(ctx, p, cam, given) {
  const [A, B, C] = p.sides.map(s => s / 2), sx = cam.eye[0] > 0 ? -1 : 1, sy = cam.eye[1] > 0 ? -1 : 1;
  const line = points => {
    ctx.beginPath();
    points.forEach(q => ctx.lineTo(...cam.see(...q).slice(0, 2)));
  };
  const faces = [[[-A, -B, -C], [A, -B, -C], [A, B, -C], [-A, B, -C]],
    [[sx * A, -B, -C], [sx * A, B, -C], [sx * A, B, C], [sx * A, -B, C]],
    [[-A, sy * B, -C], [A, sy * B, -C], [A, sy * B, C], [-A, sy * B, C]]];
  faces.forEach((face, k) => {
    line(face);
    ctx.fillStyle = k ? "#f7f9fa" : "#f1f4f7";
    ctx.fill();
  });
  ctx.strokeStyle = "#d3dae1"; ctx.lineWidth = 1;
  const across = (marks, [low, high], side, points) => marks.forEach(([v]) => {
    line(points(((v - low) / (high - low) - 0.5) * side));
    ctx.stroke();
  });
  across(ticks(p.x[0], p.x[1], 5), p.x, 2 * A, x => [[x, -sy * B, -C], [x, sy * B, -C], [x, sy * B, C]]);
  across(ticks(p.y[0], p.y[1], 5), p.y, 2 * B, y => [[-sx * A, y, -C], [sx * A, y, -C], [sx * A, y, C]]);
  across(given.ticks, given.range, 2 * C, z => [[-sx * A, sy * B, z], [sx * A, sy * B, z], [sx * A, -sy * B, z]]);
}

function relief(ctx, { fx, fy, xs, ys, zs, X, Y, normals, lines }, C, cam, shade) { // C: the height of the box
  for (let k = 0; k < fx * fy; k++) [X[k], Y[k]] = cam.see(xs[k % fx], ys[Math.floor(k / fx)], zs[k]);
  const order = (v, from) => Array.from({ length: v.length - 1 }, (_, k) => k)
    .sort((a, b) => Math.abs(v[b] + v[b + 1] - 2 * from) - Math.abs(v[a] + v[a + 1] - 2 * from));
  const light = [0, 1, 2].map(k => 0.62 * cam.toward[k] - 0.45 * cam.right[k] + 0.64 * cam.up[k]);
  const rows = order(ys, cam.eye[1]), dot = (u, n) => u[0] * normals[n] + u[1] * normals[n + 1] + u[2] * normals[n + 2];
  ctx.lineJoin = ctx.lineCap = "round"; // the ends of a line of equal height reach over the seam to the next cell
  for (const i of order(xs, cam.eye[0])) for (const j of rows) {
    const k = j * fx + i, n = 3 * k;
    if (!(normals[n + 2] > 0)) continue;
    const z = (zs[k] + zs[k + 1] + zs[k + fx] + zs[k + fx + 1]) / 4;
    const above = dot([cam.eye[0] - xs[i], cam.eye[1] - ys[j], cam.eye[2] - z], n) > 0;
    ctx.fillStyle = shade(z / C + 0.5, above ? Math.max(0, dot(light, n)) : -1);
    const corners = [k, k + 1, k + fx + 1, k + fx], middle = V => corners.reduce((sum, v) => sum + V[v] / 4, 0);
    const cx = middle(X), cy = middle(Y);
    ctx.beginPath();
    for (const v of corners) { // half a dot larger, against seams
      ctx.lineTo(X[v] + (X[v] > cx ? 0.5 : -0.5), Y[v] + (Y[v] > cy ? 0.5 : -0.5));
    }
    ctx.fill();
    for (let h = 0; lines[k] && h < lines[k].length; h += 5) {
      const [a, b, c, d, level] = lines[k].slice(h, h + 5);
      ctx.strokeStyle = level < 0 ? "#b4bfd2" : "#5e583f";
      ctx.lineWidth = 1.1;
      ctx.beginPath();
      for (const q of [cam.see(a, b, level), cam.see(c, d, level)]) ctx.lineTo(q[0], q[1]);
      ctx.stroke();
    }
  }
}

function shades(colours) { // (height from 0 to 1, cosine to the light) -> a colour; a cosine < 0: seen from below
  const stops = colours.map(c => [1, 3, 5].map(k => parseInt(c.slice(k, k + 2), 16))), kept = new Map();
  return (t, lit) => {
    const at = Math.round(clamp(t, 0, 1) * 255), bright = lit < 0 ? 38 : Math.round(44 + 25 * Math.min(lit, 1));
    const key = 256 * at + bright;
    if (!kept.has(key)) {
      const place = at / 255 * (stops.length - 1), k = Math.min(Math.floor(place), stops.length - 2);
      const mixed = stops[k].map((v, c) => v + (place - k) * (stops[k + 1][c] - v));
      kept.set(key, `rgb(${mixed.map(v => Math.round(Math.min(255, v * bright / 64)))})`);
    }
    return kept.get(key);
  };
}
