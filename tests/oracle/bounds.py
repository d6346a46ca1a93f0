"""Numbers with a running error bound, and reverse-mode derivatives of formulas made of them.

A `Num` is an array x and a magnitude m such that a float32 computation of x errs by a few eps m: sums and products add
magnitudes, f(x) carries |f| + |f'| m, a quotient m_n/|d| + |n| m_d/d^2. A `Var` is a Num that remembers how it was made;
`backward` walks back with Nums, so that every entry of every gradient has a bound of its own.
"""
import numpy as np

EPS = 2.0 ** -24  # unit roundoff of float32
C = 8.0           # an output passes when |err| <= C eps m


class Num:
    def __init__(self, x, m=None):
        self.x = np.asarray(x, np.float64)
        self.m = np.abs(self.x) if m is None else np.broadcast_to(m, self.x.shape)

    def __add__(self, o):
        return Num(self.x + o.x, self.m + o.m)

    def __neg__(self):
        return Num(-self.x, self.m)

    def __mul__(self, o):
        return Num(self.x * o.x, np.abs(self.x) * o.m + self.m * np.abs(o.x))

    def __truediv__(self, o):  # 0 where the divisor is 0
        ok = o.x != 0
        d = np.where(ok, o.x, 1)
        return Num(np.where(ok, self.x / d, 0), np.where(ok, self.m / np.abs(d) + np.abs(self.x) * o.m / d**2, 0))

    def __matmul__(self, o):
        return Num(self.x @ o.x, np.abs(self.x) @ o.m + self.m @ np.abs(o.x))

    def each(self, f):
        """f is linear and changes no sizes: a transpose, a sum, a choice of entries."""
        return Num(f(self.x), f(self.m))

    def where(self, mask):
        return self.each(lambda x: np.where(mask, x, 0.0))


def fit(g, shape):
    """Sums a gradient over the axes along which its argument was repeated."""
    extra = len(g.x.shape) - len(shape)
    axes = tuple(i for i in range(len(g.x.shape)) if i < extra or (shape[i - extra] == 1 and g.x.shape[i] != 1))
    return g.each(lambda x: x.sum(axes, keepdims=True).reshape(shape)) if axes or extra else g


def step(u):
    """1 where u > 0. Where rounding can turn u's sign, the step may be either: its magnitude says so."""
    up = (u.x > 0) * 1.0
    return Num(up, up + (np.abs(u.x) < C * EPS * u.m) / EPS)


class Var:
    def __init__(self, n, *parents):
        self.n = n if isinstance(n, Num) else Num(n)
        self.parents = parents  # (Var, function from the gradient of this to that of the Var)

    @property
    def shape(self):
        return self.n.x.shape

    def __add__(self, o):
        o = var(o)
        return Var(self.n + o.n, (self, lambda g: fit(g, self.shape)), (o, lambda g: fit(g, o.shape)))

    def __sub__(self, o):
        return self + -var(o)

    def __neg__(self):
        return Var(-self.n, (self, lambda g: -g))

    def __mul__(self, o):
        o = var(o)
        return Var(self.n * o.n, (self, lambda g: fit(g * o.n, self.shape)), (o, lambda g: fit(g * self.n, o.shape)))

    def __truediv__(self, o):
        o = var(o)
        y = self.n / o.n
        return Var(y, (self, lambda g: fit(g / o.n, self.shape)), (o, lambda g: fit(-(g * y / o.n), o.shape)))

    def __matmul__(self, o):
        o = var(o)
        t = lambda n: n.each(np.transpose)
        return Var(self.n @ o.n, (self, lambda g: g @ t(o.n)), (o, lambda g: t(self.n) @ g))

    __radd__ = __add__
    __rmul__ = __mul__

    @property
    def T(self):
        return Var(self.n.each(np.transpose), (self, lambda g: g.each(np.transpose)))

    def sum(self, axis):
        return Var(self.n.each(lambda x: x.sum(axis, keepdims=True)),
                   (self, lambda g: g.each(lambda x: np.broadcast_to(x, self.shape))))

    def where(self, mask):
        return Var(self.n.where(mask), (self, lambda g: g.where(np.broadcast_to(mask, self.shape))))

    def reshape(self, *shape):
        return Var(self.n.each(lambda x: x.reshape(shape)), (self, lambda g: g.each(lambda x: x.reshape(self.shape))))

    def __getitem__(self, index):
        def back(x):
            out = np.zeros(self.shape)
            np.add.at(out, index, x)
            return out
        return Var(self.n.each(lambda x: x[index]), (self, lambda g: g.each(back)))

    def smooth(self, f, f1, f2, extra=0.0):
        """f element by element, with its first two derivatives; `extra`: magnitude of sums inside f that cancel."""
        x, m = self.n.x, self.n.m
        slope = Num(f1(x), np.abs(f1(x)) + np.abs(f2(x)) * m)
        return Var(Num(f(x), np.abs(f(x)) + np.abs(f1(x)) * m + extra), (self, lambda g: g * slope))

    def exp(self, shift=0.0):
        """e^x, computed from x - shift and more: the shift's rounding is in the exponent."""
        y = np.exp(self.n.x)
        y = Num(y, y * (1 + self.n.m + np.abs(shift)))
        return Var(y, (self, lambda g: g * y))

    def log(self):
        return self.smooth(np.log, lambda x: 1 / x, lambda x: -1 / x**2)

    def sqrt(self):  # its slope at 0 counts as 0
        ok = lambda x, y: np.where(x > 0, y, 0)
        safe = lambda x: np.where(x > 0, x, 1)
        return self.smooth(lambda x: np.sqrt(np.maximum(x, 0)), lambda x: ok(x, 0.5 / np.sqrt(safe(x))),
                           lambda x: ok(x, -0.25 / safe(x)**1.5))

    def relu(self):
        up = step(self.n)
        return Var(Num(np.maximum(self.n.x, 0), self.n.m), (self, lambda g: g * up))

    def abs(self):
        sign = step(self.n) + -step(-self.n)
        return Var(Num(np.abs(self.n.x), self.n.m), (self, lambda g: g * sign))

    def frozen(self):
        """The same number, a constant to gradients."""
        return Var(self.n)


def var(x):
    return x if isinstance(x, Var) else Var(x)


def concat(parts, axis):
    cuts = np.cumsum([0] + [p.shape[axis] for p in parts])
    pick = lambda i: lambda g: g.each(lambda x: np.take(x, np.arange(cuts[i], cuts[i + 1]), axis))
    return Var(Num(np.concatenate([p.n.x for p in parts], axis), np.concatenate([p.n.m for p in parts], axis)),
               *((p, pick(i)) for i, p in enumerate(parts)))


def backward(y, dy, leaves):
    """Gradients of <dy, y> by the leaves, zeros where y does not depend on one."""
    order, seen, stack = [], set(), [(y, False)]
    while stack:
        v, done = stack.pop()
        if done:
            order.append(v)
        elif id(v) not in seen:
            seen.add(id(v))
            stack.append((v, True))
            stack.extend((p, False) for p, _ in v.parents)
    grads = {id(y): Num(dy)}
    for v in reversed(order):
        g = grads.get(id(v))
        for p, f in v.parents if g is not None else ():
            part = f(g)
            grads[id(p)] = grads[id(p)] + part if id(p) in grads else part
    return [grads.get(id(leaf), Num(np.zeros(leaf.shape))) for leaf in leaves]


def worst(got, want):
    """Largest |err| / (eps m) over the entries; infinite where m is 0 and the error is not."""
    got = np.asarray(got, np.float64)
    if got.shape != want.x.shape:
        return float("inf")
    err, bound = np.abs(got - want.x), EPS * want.m + 1e-37
    return float(np.max(err / bound, initial=0)) if np.isfinite(got).all() else float("inf")
