"""One query over keys and values that are codes of a few bits (nn/decoding/kivi.py), on a CPU: nothing is unpacked into
memory. A byte holds numbers that stand a part of a group apart, so that unpacking is a shift of whole vectors.

    score_t = scale sum_d q_d (low_d + step_d code_dt)          keys by channel: groups of words
    y_d = sum_t p_t (low_t + step_t code_td)                    values by word: groups of channels

In both sums the lows and the steps leave the inner loop: q_d step_d times codes, p_t step_t times codes.
"""

import numba
import numpy as np

HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)  # float16 numbers by their bits


@numba.njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy", nogil=True)
def _score(q, codes, low, step, bits, table, out):
    """out[t] += q . key_t of whole groups; codes: (units, d, bytes), low, step: (units, d) bits of float16."""
    units, d, size = codes.shape
    parts, mask = 8 // bits, np.uint8((1 << bits) - 1)
    group = size * parts
    for u in range(units):
        for c in range(d):
            a, b = q[c] * table[step[u, c]], q[c] * table[low[u, c]]
            row = codes[u, c]
            for part in range(parts):
                first, shift = u * group + part * size, np.uint8(bits * part)
                for j in range(size):
                    out[first + j] += b + a * np.float32((row[j] >> shift) & mask)


@numba.njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy", nogil=True)
def _mix(p, codes, low, step, bits, table, out):
    """out[d] += sum_t p_t value_t; codes: (words, groups, bytes), low, step: (words, groups) bits of float16."""
    words, groups, size = codes.shape
    parts, mask = 8 // bits, np.uint8((1 << bits) - 1)
    for t in range(words):
        for g in range(groups):
            a, b = p[t] * table[step[t, g]], p[t] * table[low[t, g]]
            row = codes[t, g]
            for part in range(parts):
                first, shift = g * size * parts + part * size, np.uint8(bits * part)
                for j in range(size):
                    out[first + j] += b + a * np.float32((row[j] >> shift) & mask)


@numba.njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy", nogil=True)
def attend(q, keys, key_low, key_step, new_keys, values, value_low, value_step, new_values, bits, scale, table, y):
    """y: (B, G, R, d), of q alike; keys: (B, G, units, d, bytes), new_keys: (B, G, t, d), values: (B, G, words, groups,
    bytes), new_values: (B, G, t', d). All that is there is seen."""
    B, G, R, d = q.shape
    old, new = keys.shape[2] * keys.shape[4] * (8 // bits), new_keys.shape[2]
    told, scores = values.shape[2], np.empty(old + new, np.float32)
    for b in range(B):
        for g in range(G):
            for r in range(R):
                scores[:] = 0
                _score(q[b, g, r], keys[b, g], key_low[b, g], key_step[b, g], bits, table, scores)
                for t in range(new):
                    total = np.float32(0)
                    for c in range(d):
                        total += q[b, g, r, c] * new_keys[b, g, t, c]
                    scores[old + t] = total
                top = scores[0]
                for t in range(old + new):
                    top = max(top, scores[t])
                total = np.float32(0)
                for t in range(old + new):
                    scores[t] = np.exp(np.float32(scale) * (scores[t] - top))
                    total += scores[t]
                out = y[b, g, r]
                out[:] = 0
                _mix(scores, values[b, g], value_low[b, g], value_step[b, g], bits, table, out)
                for t in range(new_values.shape[2]):
                    p = scores[told + t]
                    for c in range(d):
                        out[c] += p * new_values[b, g, t, c]
                for c in range(d):
                    out[c] /= total
