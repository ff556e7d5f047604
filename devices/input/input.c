/* Who gets what people type and point at; see input.h.
 *
 * The list of devices is complete before the first event and never changes; what
 * changes is atomic.  Devices take their own locks. */
#include "devices/input/input.h"

#include <errno.h>

#define MAX_DEVICES 32

struct input {
	struct {
		struct device *dev;
		const struct input_ops *ops;
	} devices[MAX_DEVICES]; /* [const] after building */
	unsigned n;		/* [const] after building */
	u32 chosen;		/* [atomic] number of the mouse that was asked for, 0: none */
	bool on;		/* [atomic] */
};

struct input *input_new(void)
{
	return xnew(struct input);
}

void input_free(struct input *in)
{
	free(in);
}

void input_add(struct input *in, struct device *dev, const struct input_ops *ops)
{
	if (in->n == MAX_DEVICES) /* the first ones do */
		return;
	in->devices[in->n].dev = dev;
	in->devices[in->n++].ops = ops;
}

void input_enable(struct input *in, bool on)
{
	/* Alone: an event on the way while this changes may go either way. */
	__atomic_store_n(&in->on, on, __ATOMIC_RELAXED);
}

static bool is_enabled(const struct input *in)
{
	return __atomic_load_n(&in->on, __ATOMIC_RELAXED);
}

static bool listens(const struct input *in, unsigned i)
{
	return !in->devices[i].ops->is_on || in->devices[i].ops->is_on(in->devices[i].dev);
}

/* --- keys ------------------------------------------------------------------------- */

/* The newest keyboard with a driver; the first one when none has. */
static int find_keyboard(const struct input *in)
{
	int found = -ENODEV;

	for (unsigned i = in->n; i-- > 0;) {
		if (!in->devices[i].ops->key)
			continue;
		found = (int)i;
		if (listens(in, i))
			return found;
	}
	return found;
}

int input_key(struct input *in, u32 keycode, bool pressed)
{
	int i = find_keyboard(in);

	if (i < 0 || !is_enabled(in))
		return 0;
	return in->devices[i].ops->key(in->devices[i].dev, keycode, pressed);
}

u32 input_leds(struct input *in)
{
	int i = find_keyboard(in);

	return i >= 0 && in->devices[i].ops->leds ? in->devices[i].ops->leds(in->devices[i].dev)
						  : 0;
}

/* --- movements -------------------------------------------------------------------- */

/* The newest of this sort with a driver, or, if `any`, the first one at all. */
static int find_pointer(const struct input *in, bool absolute, bool any)
{
	int found = -ENODEV;

	for (unsigned i = in->n; i-- > 0;) {
		const struct input_ops *ops = in->devices[i].ops;

		if (!ops->move || ops->absolute != absolute)
			continue;
		if (listens(in, i))
			return (int)i;
		found = any ? (int)i : found;
	}
	return found;
}

/* The chosen one; else a tablet with a driver before a mouse. */
static int find_mouse(const struct input *in)
{
	u32 chosen = __atomic_load_n(&in->chosen, __ATOMIC_RELAXED);
	int tablet;

	if (chosen)
		return (int)chosen - 1;
	tablet = find_pointer(in, true, false);
	return tablet >= 0 ? tablet : find_pointer(in, false, true);
}

bool input_is_absolute(struct input *in)
{
	int i = find_mouse(in);

	return i >= 0 && in->devices[i].ops->absolute;
}

void input_move(struct input *in, const struct input_move *m)
{
	int i = find_mouse(in);

	if (i >= 0 && in->devices[i].ops->absolute != m->absolute)
		i = find_pointer(in, m->absolute, true);
	if (i >= 0 && is_enabled(in))
		in->devices[i].ops->move(in->devices[i].dev, m);
}

int input_choose_mouse(struct input *in, unsigned number, const struct input_ops **ops)
{
	if (!number || number > in->n)
		return -ENOENT;
	*ops = in->devices[number - 1].ops;
	if (!(*ops)->move)
		return -EINVAL;
	__atomic_store_n(&in->chosen, number, __ATOMIC_RELAXED);
	return 0;
}

void input_each_mouse(struct input *in,
		      void (*fn)(void *arg, unsigned number, const struct input_ops *ops,
				 bool chosen),
		      void *arg)
{
	int current = find_mouse(in);

	for (unsigned i = in->n; i-- > 0;)
		if (in->devices[i].ops->move)
			fn(arg, i + 1, in->devices[i].ops, (int)i == current);
}
