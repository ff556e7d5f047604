/* A monitor on a chardev: banner, prompt, lines in, text out; see monitor.h. */
#include "monitor/monitor.h"

#include "base/chardev.h"
#include "monitor/internal.h"
#include "vmm/control_drives.h"

#define KEPT_BYTES   4096
#define SECRET_BYTES 1024
#define CTRL_C	     0x03
#define CTRL_U	     0x15

struct monitor {
	struct vm *vm;		    /* [const] */
	struct chardev *chardev;    /* [const] */
	struct chardev_user user;   /* [const] */
	struct printer printer;	    /* [const] */
	struct line_editor *editor; /* [main] made when a peer is there */
	struct key_sender keys;	    /* [main] */
	u32 cpu;		    /* [main] */
	bool greeted, done;	    /* [main] */
	/* A command is under way.  [main] */
	struct monitor_wait *wait;
	u8 kept[KEPT_BYTES]; /* typed meanwhile */
	size_t n_kept;
	void (*answer)(struct monitor_wait *w, const char *text); /* NULL: nothing asked */
	char secret[SECRET_BYTES];
	size_t n_secret;
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
			      .mon = mon,
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
		vm_print_locked(mon->vm, &mon->printer);
		mon->editor = line_editor_new(&editor_ops, mon, "(cowvm) ", term);
		mon->greeted = true;
	}
	line_editor_prompt(mon->editor);
}

/* --- commands that take their time --------------------------------------------------- */

void monitor_suspend(struct monitor *mon, struct monitor_wait *w)
{
	assert(!mon->wait && mon->editor);
	w->mon = mon;
	mon->wait = w;
	chardev_take_interrupt(mon->chardev, true);
	line_editor_suspend(mon->editor);
}

/* Feed what was kept, as far as no command among it suspends again. */
static void feed_kept(struct monitor *mon)
{
	while (mon->n_kept && !mon->wait && mon->editor) {
		u8 bytes[KEPT_BYTES];
		size_t n = mon->n_kept, taken;

		memcpy(bytes, mon->kept, n);
		mon->n_kept = 0;
		taken = line_editor_input(mon->editor, bytes, n);
		memmove(mon->kept + (n - taken), mon->kept, mon->n_kept);
		memcpy(mon->kept, bytes + taken, n - taken);
		mon->n_kept += n - taken;
	}
}

void monitor_resume(struct monitor *mon)
{
	assert(mon->wait && !mon->answer);
	mon->wait = NULL;
	chardev_take_interrupt(mon->chardev, false);
	if (!mon->editor)
		return;
	line_editor_resume(mon->editor);
	feed_kept(mon);
}

void monitor_ask_secret(struct monitor *mon, const char *prompt,
			void (*answer)(struct monitor_wait *w, const char *text))
{
	assert(mon->wait && !mon->answer);
	mon->answer = answer;
	mon->n_secret = 0;
	print_to(&mon->printer, "%s", prompt);
}

struct printer *monitor_printer(struct monitor *mon)
{
	return &mon->printer;
}

bool monitor_is_terminal(const struct monitor *mon)
{
	return chardev_is_terminal(mon->chardev);
}

static void secret_ends(struct monitor *mon, bool given)
{
	void (*answer)(struct monitor_wait * w, const char *text) = mon->answer;

	write_text(mon, "\n", 1);
	mon->answer = NULL;
	mon->secret[mon->n_secret] = 0;
	answer(mon->wait, given ? mon->secret : NULL);
	explicit_bzero(mon->secret, sizeof(mon->secret));
	mon->n_secret = 0;
}

/* One byte of a line that is not shown. */
static void secret_byte(struct monitor *mon, u8 byte)
{
	bool show = monitor_is_terminal(mon);

	switch (byte) {
	case '\r':
	case '\n': secret_ends(mon, true); break;
	case CTRL_C: secret_ends(mon, false); break;
	case CTRL_U:
		for (; show && mon->n_secret; mon->n_secret--)
			write_text(mon, "\b \b", 3);
		mon->n_secret = 0;
		break;
	case '\b':
	case 0x7f:
		if (!mon->n_secret)
			break;
		mon->n_secret--;
		if (show)
			write_text(mon, "\b \b", 3);
		break;
	default:
		if (mon->n_secret + 1 == SECRET_BYTES || byte < ' ')
			break;
		mon->secret[mon->n_secret++] = (char)byte;
		if (show)
			write_text(mon, "*", 1);
	}
}

/* A byte typed while a command is under way. */
static void wait_byte(struct monitor *mon, u8 byte)
{
	if (mon->answer)
		secret_byte(mon, byte);
	else if (byte == CTRL_C)
		mon->wait->interrupt(mon->wait);
	else if (mon->n_kept < KEPT_BYTES)
		mon->kept[mon->n_kept++] = byte;
}

static void forget_wait(struct monitor *mon)
{
	struct monitor_wait *wait = mon->wait;

	mon->wait = NULL;
	mon->answer = NULL;
	mon->n_kept = 0;
	explicit_bzero(mon->secret, sizeof(mon->secret));
	if (!wait)
		return;
	chardev_take_interrupt(mon->chardev, false);
	wait->gone(wait);
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

	while (bytes && mon->editor) {
		size_t n = 1;

		if (mon->wait)
			wait_byte(mon, *data);
		else
			n = line_editor_input(mon->editor, data, bytes);
		data += n;
		bytes -= n;
	}
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
		forget_wait(mon);
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
	forget_wait(mon);
	key_sender_fini(&mon->keys);
	line_editor_free(mon->editor);
	chardev_detach(&mon->user);
	free(mon);
}
