/* The machine's display: what draws it, who shows it, pictures of it; and what people
 * type and point at. */
#include "devices/device.h"
#include "devices/display/display.h"
#include "devices/display/vnc.h"
#include "devices/input/input.h"
#include "devices/ps2.h"
#include "devices/vga/vga.h"
#include "devices/virtio/input.h"
#include "vmm/screen.h"

#include <errno.h>
#include <time.h>

/* One -vnc. */
struct vnc_display {
	const struct vnc_config *config; /* [const] */
	struct vnc *vnc;		 /* [const] NULL: nobody can connect */
};

struct screen {
	struct display *display;  /* [const] */
	struct input *input;	  /* [const] */
	struct vnc_display *vncs; /* [const] in the order of the command line */
	unsigned n_vncs;
	u32 buttons;		 /* held by the monitor */
	struct vm_watcher watch; /* lets input through while the machine runs */
};

static struct device *find_vga(struct vm *vm)
{
	list_for_each (pos, &vm->machine.devices) {
		struct device *dev = list_entry(pos, struct device, link);

		if (dev->cls == &vga_class)
			return dev;
	}
	return NULL;
}

/* Who stands still sees and hears nothing. */
static void state_changed(struct vm_watcher *w, enum run_state state)
{
	input_enable(container_of(w, struct screen, watch)->input, state == RUN_RUNNING);
}

static void add_input(struct vm *vm)
{
	vm->screen->input = input_new();
	input_add(vm->screen->input, vm->keyboard, &ps2_keyboard_input);
	input_add(vm->screen->input, vm->keyboard, &ps2_mouse_input);
	list_for_each (pos, &vm->machine.devices) {
		struct device *dev = list_entry(pos, struct device, link);
		const struct input_ops *ops = virtio_input_ops(dev);

		if (ops)
			input_add(vm->screen->input, dev, ops);
	}
	vm->screen->watch.changed = state_changed;
	vm_watch(vm, &vm->screen->watch);
}

static int open_vnc(struct vm *vm, struct vnc_display *d, struct error *err)
{
	const struct vnc_config *c = d->config;
	AUTO_FREE char *name =
		vm->config->name ? xasprintf("cowvm (%s)", vm->config->name) : xstrdup("cowvm");
	struct vnc_options opt = {
		.name = name,
		.path = c->path,
		.host = c->host,
		.port = c->port,
		.port_last = c->port_last,
		.ws_host = c->ws_host,
		.ws_port = c->ws_port,
		.password = c->password,
		.no_ipv4 = c->no_ipv4,
		.no_ipv6 = c->no_ipv6,
		.share = (enum vnc_share)c->share,
	};

	for (unsigned i = 0; i < vm->screen->n_vncs && !opt.first; i++)
		opt.first = vm->screen->vncs[i].vnc;
	if (vnc_new(&d->vnc, &opt, vm->screen->display, vm->screen->input, vm->loop, err) < 0)
		return err_prefix(err, "%s", c->source);
	return 0;
}

static int add_vncs(struct vm *vm, struct error *err)
{
	struct screen *s = vm->screen;
	unsigned n = 0;
	int ret = 0;

	list_for_each (pos, &vm->config->vncs)
		n++;
	s->vncs = xalloc(MAX(n, 1u) * sizeof(*s->vncs));
	list_for_each (pos, &vm->config->vncs) {
		struct vnc_display *d = &s->vncs[s->n_vncs++];

		*d = (struct vnc_display){.config = list_entry(pos, struct vnc_config, link)};
		if (!d->config->none && ret == 0)
			ret = open_vnc(vm, d, err);
	}
	return ret;
}

static struct vnc_display *find_vnc(struct vm *vm, const char *id)
{
	for (unsigned i = 0; i < vm->screen->n_vncs; i++)
		if (!id || !strcmp(vm->screen->vncs[i].config->id, id))
			return &vm->screen->vncs[i];
	return NULL;
}

int vm_add_screen(struct vm *vm, struct error *err)
{
	struct device *vga = find_vga(vm);

	vm->screen = xnew(struct screen);
	vm->screen->display = display_new(vm->loop, vga ? vga_display_source(vga) : NULL);
	add_input(vm);
	return add_vncs(vm, err);
}

void vm_free_screen(struct vm *vm)
{
	if (!vm->screen)
		return;
	vm_unwatch(vm, &vm->screen->watch);
	while (vm->screen->n_vncs) /* the first last: see vnc_options */
		vnc_free(vm->screen->vncs[--vm->screen->n_vncs].vnc);
	free(vm->screen->vncs);
	display_free(vm->screen->display);
	input_free(vm->screen->input);
	free(vm->screen);
}

int vm_key(struct vm *vm, u32 keycode, bool pressed, struct error *err)
{
	int ret = input_key(vm->screen->input, keycode, pressed);

	display_poke(vm->screen->display);
	/* A guest that takes no keys loses them, as on a real machine. */
	if (ret == -EINVAL)
		return err_set(err, ret, "the keyboard has no key 0x%x", keycode);
	return 0;
}

void vm_info_vnc(struct vm *vm, struct printer *p)
{
	const struct screen *s = vm->screen;

	for (unsigned i = s->n_vncs; i-- > 0;) {
		print_to(p, "%s:\n", s->vncs[i].config->id);
		if (s->vncs[i].vnc)
			vnc_print_info(s->vncs[i].vnc, p);
		else
			print_to(p, "  Auth: none (Sub: none)\n");
	}
	if (!s->n_vncs)
		print_to(p, "None\n");
}

int vm_screendump(struct vm *vm, const char *path, const char *format, struct error *err)
{
	bool png = format && !strcmp(format, "png");

	if (format && !png && strcmp(format, "ppm") != 0)
		return err_set(err, -EINVAL, "invalid parameter value: %s", format);
	if (!display_has_screen(vm->screen->display))
		return err_set(err, -ENODEV, "There is no console to take a screendump from");
	display_refresh(vm->screen->display);
	return surface_write(display_surface(vm->screen->display), path,
			     png ? PICTURE_PNG : PICTURE_PPM, err);
}

/* --- the mouse ------------------------------------------------------------------- */

static void move(struct vm *vm, s32 dx, s32 dy, s32 dz)
{
	const struct input_move m = {
		.x = dx, .y = dy, .wheel = -dz, .buttons = vm->screen->buttons};

	input_move(vm->screen->input, &m);
	display_poke(vm->screen->display);
}

void vm_mouse_move(struct vm *vm, s32 dx, s32 dy, s32 dz)
{
	move(vm, dx, dy, dz);
}

void vm_mouse_button(struct vm *vm, u32 buttons)
{
	vm->screen->buttons = (buttons & 1 ? INPUT_LEFT : 0u) | (buttons & 2 ? INPUT_MIDDLE : 0u) |
			      (buttons & 4 ? INPUT_RIGHT : 0u);
	move(vm, 0, 0, 0);
}

int vm_mouse_set(struct vm *vm, u32 number, struct error *err)
{
	const struct input_ops *ops;
	int ret = input_choose_mouse(vm->screen->input, number, &ops);

	if (ret == -ENOENT)
		return err_set(err, ret, "Mouse at index '%u' not found", number);
	if (ret < 0)
		return err_set(err, ret, "Input device '%s' is not a mouse", ops->name);
	return 0;
}

static void print_mouse(void *arg, unsigned number, const struct input_ops *ops, bool chosen)
{
	print_to(arg, "%c Mouse #%u: %s%s\n", chosen ? '*' : ' ', number, ops->name,
		 ops->absolute ? " (absolute)" : "");
}

void vm_info_mice(struct vm *vm, struct printer *p)
{
	input_each_mouse(vm->screen->input, print_mouse, p);
}

/* --- VNC passwords ---------------------------------------------------------------- */

bool vm_vnc_takes_passwords(struct vm *vm, const char *display)
{
	const struct vnc_display *d = find_vnc(vm, display);

	return !d || d->config->password;
}

int vm_vnc_set_password(struct vm *vm, const char *display, const char *password, struct error *err)
{
	const struct vnc_display *d = find_vnc(vm, display);

	if (!d || !d->vnc || vnc_set_password(d->vnc, password) < 0)
		return err_set(err, -EINVAL, "Could not set password");
	return 0;
}

int vm_vnc_expire(struct vm *vm, const char *display, const char *when, struct error *err)
{
	const struct vnc_display *d = find_vnc(vm, display);
	s64 now = time(NULL), at;
	u64 seconds;

	if (!d)
		return err_set(err, -ENODEV, "Could not set password expire time");
	if (!strcmp(when, "now"))
		at = now;
	else if (!strcmp(when, "never"))
		at = 0;
	else if (parse_u64(when + (*when == '+'), &seconds) < 0 || seconds > INT64_MAX / 2)
		return err_set(err, -EINVAL,
			       "expiry time is '%s', expected now, never, +seconds "
			       "or seconds since 1970",
			       when);
	else
		at = (s64)seconds + (*when == '+' ? now : 0);
	if (d->vnc)
		vnc_set_expiry(d->vnc, at);
	return 0;
}
