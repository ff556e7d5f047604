/* A monitor on a chardev: banner, prompt, lines in, text out; see monitor.h. */
#include "monitor/monitor.h"

#include "base/chardev.h"
#include "monitor/internal.h"

struct monitor {
	struct vm *vm;		    /* [const] */
	struct chardev *chardev;    /* [const] */
	struct chardev_user user;   /* [const] */
	struct printer printer;	    /* [const] */
	struct line_editor *editor; /* [main] made when a peer is there */
	struct key_sender keys;	    /* [main] */
	u32 cpu;		    /* [main] */
	bool focus, greeted, done;  /* [main] */
};

/* Lines end in \r\n, whatever the terminal's settings are. */
static void write_text(struct monitor *mon, const char *text, size_t bytes)
{
	while (bytes) {
		const char *end = memchr(text, '\n', bytes);
		size_t n = end ? (size_t)(end - text) : bytes;

		if (n)
			chardev_write(&mon->user, text, n);
		if (!end)
			return;
		chardev_write(&mon->user, "\r\n", 2);
		text += n + 1;
		bytes -= n + 1;
	}
}

static void monitor_print(struct printer *p, const char *text, size_t bytes)
{
	write_text(container_of(p, struct monitor, printer), text, bytes);
}

static void editor_write(void *arg, const char *data, size_t bytes)
{
	struct monitor *mon = arg;

	/* readline puts \r before \n itself where its terminal needs one. */
	chardev_write(&mon->user, data, bytes);
}

static void editor_line(void *arg, const char *line)
{
	struct monitor *mon = arg;
	struct cmd_ctx ctx = {.vm = mon->vm,
			      .out = &mon->printer,
			      .keys = &mon->keys,
			      .editor = mon->editor,
			      .cpu = &mon->cpu,
			      .done = &mon->done};

	if (!mon->done)
		hmp_run_line(&ctx, line);
}

static const struct line_editor_ops editor_ops = {.write = editor_write, .line = editor_line};

static void greet(struct monitor *mon)
{
	const char *term = chardev_is_terminal(mon->chardev) ? getenv("TERM") : NULL;

	if (mon->greeted) {
		write_text(mon, "\n", 1);
	} else {
		print_to(&mon->printer, "cowvm %s monitor - type 'help' for more information\n",
			 COWVM_VERSION);
		mon->editor = line_editor_new(&editor_ops, mon, "(cowvm) ", term);
		mon->greeted = true;
	}
	line_editor_prompt(mon->editor);
}

/* --- chardev side ------------------------------------------------------------------- */

static size_t monitor_can_receive(struct chardev_user *u)
{
	struct monitor *mon = container_of(u, struct monitor, user);

	return mon->done ? 0 : 256;
}

static void monitor_receive(struct chardev_user *u, const u8 *data, size_t bytes)
{
	struct monitor *mon = container_of(u, struct monitor, user);

	if (mon->editor)
		line_editor_input(mon->editor, data, bytes);
}

static void monitor_event(struct chardev_user *u, enum chardev_event event)
{
	struct monitor *mon = container_of(u, struct monitor, user);

	switch (event) {
	case CHARDEV_OPENED:
		if (!chardev_is_mux(mon->chardev))
			greet(mon);
		break;
	case CHARDEV_FOCUS:
		if (chardev_is_mux(mon->chardev))
			greet(mon);
		break;
	case CHARDEV_CLOSED: /* the next peer starts afresh */
		line_editor_free(mon->editor);
		mon->editor = NULL;
		mon->greeted = false;
		break;
	default: break;
	}
}

int monitor_new(struct monitor **out, struct vm *vm, struct chardev *chardev, struct error *err)
{
	struct monitor *mon = xnew(struct monitor);
	int ret;

	mon->vm = vm;
	mon->chardev = chardev;
	mon->printer.print = monitor_print;
	mon->user.can_receive = monitor_can_receive;
	mon->user.receive = monitor_receive;
	mon->user.event = monitor_event;
	key_sender_init(&mon->keys, vm);
	ret = chardev_attach(chardev, &mon->user, err);
	if (ret < 0) {
		monitor_free(mon);
		return ret;
	}
	*out = mon;
	return 0;
}

void monitor_free(struct monitor *mon)
{
	if (!mon)
		return;
	key_sender_fini(&mon->keys);
	line_editor_free(mon->editor);
	chardev_detach(&mon->user);
	free(mon);
}
