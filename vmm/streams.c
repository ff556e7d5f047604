/* Character streams of a machine, and the serial ports and monitors on them. */
#include "base/log.h"
#include "devices/device.h"
#include "devices/serial.h"
#include "monitor/monitor.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>

static const struct {
	const char *iobase, *irq;
} serial_ports[MAX_SERIALS] = {{"0x3f8", "4"}, {"0x2f8", "3"}, {"0x3e8", "4"}, {"0x2e8", "3"}};

struct stream *vm_find_stream(struct vm *vm, const char *id)
{
	list_for_each (pos, &vm->streams) {
		struct stream *s = list_entry(pos, struct stream, link);

		if (!strcmp(s->id, id))
			return s;
	}
	return NULL;
}

static bool is_stdio(const char *spec)
{
	return !strncmp(spec, "stdio", 5) || !strncmp(spec, "mon:stdio", 9);
}

/* Ctrl-a x */
static void quit(void *arg)
{
	vm_quit(arg);
}

static int open_stream(struct vm *vm, struct chardev **out, const char *id, const char *spec,
		       bool mux, struct error *err)
{
	struct stream *s;
	int ret;

	list_for_each (pos, &vm->streams)
		if (is_stdio(spec) && list_entry(pos, struct stream, link)->is_stdio)
			return err_set(err, -EBUSY,
				       "cannot use stdio by multiple character devices");
	ret = chardev_open(out, vm->loop, id, spec, err);
	if (ret < 0 || !*out)
		return ret;
	s = xnew(struct stream);
	s->id = xstrdup(id);
	s->chardev = *out;
	s->is_stdio = is_stdio(spec);
	list_append(&vm->streams, &s->link);
	chardev_set_escape(*out, (u8)vm->config->escape_char);
	if (mux || chardev_is_mux(*out))
		return chardev_make_mux(*out, quit, vm, err);
	return 0;
}

int vm_open_streams(struct vm *vm, struct error *err)
{
	struct chardev *chardev;

	list_for_each (pos, &vm->config->chardevs) {
		struct chardev_config *c = list_entry(pos, struct chardev_config, link);

		if (open_stream(vm, &chardev, c->id, c->spec, c->mux, err) < 0)
			return err_prefix(err, "%s", c->source);
	}
	return 0;
}

int vm_stream_for(struct vm *vm, struct chardev **out, const char *id,
		  const struct frontend_config *f, struct error *err)
{
	struct stream *s;
	int ret = 0;

	*out = NULL;
	if (strncmp(f->spec, "chardev:", 8)) {
		ret = open_stream(vm, out, id, f->spec, false, err);
	} else {
		s = vm_find_stream(vm, f->spec + 8);
		if (s)
			*out = s->chardev;
		else
			ret = err_set(err, -ENOENT, "chardev \"%s\" not found", f->spec + 8);
	}
	return ret < 0 ? err_prefix(err, "%s", f->source) : 0;
}

void vm_close_monitors(struct vm *vm)
{
	struct list *item;

	while ((item = list_pop(&vm->consoles))) {
		struct console *c = list_entry(item, struct console, link);

		monitor_free(c->monitor);
		free(c);
	}
}

void vm_close_streams(struct vm *vm)
{
	struct list *item;

	while ((item = list_pop(&vm->streams))) {
		struct stream *s = list_entry(item, struct stream, link);

		chardev_flush(s->chardev);
		chardev_close(s->chardev);
		free(s->id);
		free(s);
	}
}

static int add_serial(struct vm *vm, unsigned index, const struct frontend_config *f,
		      struct error *err)
{
	char id[16];
	struct chardev *chardev;
	struct prop_value values[] = {
		{.name = "iobase", .text = serial_ports[index].iobase},
		{.name = "irq", .text = serial_ports[index].irq},
		{.name = "chardev"},
	};
	struct device_args args = {.values = values, .n_values = ARRAY_LEN(values)};
	struct device *dev;
	int ret;

	if (!strcmp(f->spec, "none"))
		return 0;
	snprintf(id, sizeof(id), "serial%u", index);
	ret = vm_stream_for(vm, &chardev, id, f, err);
	if (ret < 0)
		return ret;
	values[2].ptr = chardev;
	ret = device_new(&dev, &vm->machine, &serial_class, &args, err);
	return ret < 0 ? err_prefix(err, "%s", f->source) : 0;
}

int vm_add_serials(struct vm *vm, struct error *err)
{
	unsigned index = 0;
	int ret = 0;

	list_for_each (pos, &vm->config->serials) {
		ret = add_serial(vm, index++, list_entry(pos, struct frontend_config, link), err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int add_console(struct vm *vm, struct chardev *chardev, const char *source,
		       struct error *err)
{
	struct console *c;
	struct monitor *monitor;

	if (!chardev)
		return 0;
	if (monitor_new(&monitor, vm, chardev, err) < 0)
		return err_prefix(err, "%s", source);
	c = xnew(struct console);
	c->monitor = monitor;
	list_append(&vm->consoles, &c->link);
	return 0;
}

/* Serial ports given as mon:... share their stream with a monitor. */
static int add_shared_monitors(struct vm *vm, struct error *err)
{
	unsigned index = 0;
	char id[16];

	list_for_each (pos, &vm->config->serials) {
		struct frontend_config *f = list_entry(pos, struct frontend_config, link);

		snprintf(id, sizeof(id), "serial%u", index++);
		if (strncmp(f->spec, "mon:", 4))
			continue;
		if (add_console(vm, vm_find_stream(vm, id)->chardev, f->source, err) < 0)
			return err->code;
	}
	return 0;
}

int vm_add_monitors(struct vm *vm, struct error *err)
{
	struct chardev *chardev;
	unsigned index = 0;
	char id[32];
	int ret = add_shared_monitors(vm, err);

	list_for_each (pos, &vm->config->monitors) {
		struct frontend_config *f = list_entry(pos, struct frontend_config, link);

		if (ret < 0)
			break;
		snprintf(id, sizeof(id), "compat_monitor%u", index++);
		ret = vm_stream_for(vm, &chardev, id, f, err);
		if (ret == 0)
			ret = add_console(vm, chardev, f->source, err);
	}
	return ret;
}
