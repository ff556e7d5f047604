/* The monitor's language against a fake machine, typed through a socket pair. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/chardev.h"
#include "base/thread.h"
#include "monitor/monitor.h"
#include "vmm/control_block.h"
#include "vmm/control_drives.h"
#include "tests/lib/turns.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

struct vm {
	struct loop *loop;
	u32 keys[64], n_keys; /* code, 0x100 when released */
	u8 memory[256];
	u32 port, value, size, nmis, resets, quits, savevms, cancels;
	struct vm_waiter *waiter;
	bool running;
	const char *locked[3]; /* images, to be unlocked by "right", in order */
	unsigned unlocked, loads;
	char log[128]; /* of calls that leave no other trace */
};

/* --- the fake machine ----------------------------------------------------------- */

struct loop *vm_loop(struct vm *vm)
{
	return vm->loop;
}

u32 vm_cpus(struct vm *vm)
{
	return 2;
}

int vm_stop(struct vm *vm, struct error *err)
{
	vm->running = false;
	return 0;
}

int vm_cont(struct vm *vm, struct error *err)
{
	if (vm->running)
		return err_set(err, -EBUSY, "already running");
	vm->running = true;
	return 0;
}

int vm_system_reset(struct vm *vm, struct error *err)
{
	vm->resets++;
	return 0;
}

int vm_system_powerdown(struct vm *vm, struct error *err)
{
	return 0;
}

int vm_nmi(struct vm *vm, u32 cpu, struct error *err)
{
	vm->nmis += 1 + cpu;
	return 0;
}

char *vm_locked_image(struct vm *vm, const char *device)
{
	const char *image = vm->locked[vm->unlocked];

	if (!image || (device && strncmp(image, device, strlen(device))))
		return NULL;
	return xstrdup(image);
}

void vm_forget_unlock_waiter(struct vm *vm, struct vm_waiter *w)
{
}

int vm_unlock(struct vm *vm, const char *image, const char *passphrase, struct vm_waiter *w,
	      struct error *err)
{
	int ret = 0;

	assert_string_equal(image, vm->locked[vm->unlocked]);
	if (!strcmp(passphrase, "broken"))
		ret = err_set(err, -EIO, "Unable to read key slots");
	else if (strcmp(passphrase, "right"))
		ret = err_set(err, -EACCES, "Invalid password");
	else
		vm->unlocked++;
	if (!w)
		return ret;
	w->done(w, ret, err->text);
	return 0;
}

void vm_print_locked(struct vm *vm, struct printer *p)
{
}

bool vm_has_drive(struct vm *vm, const char *id)
{
	return !strcmp(id, "hd0") || !strcmp(id, "hd1");
}

int vm_change(struct vm *vm, const struct vm_change *c, struct error *err)
{
	if (c->mode && strcmp(c->mode, "read-only"))
		return err_set(err, -EINVAL, "invalid parameter value: %s", c->mode);
	return 0;
}

int vm_eject(struct vm *vm, const char *device, bool force, struct error *err)
{
	return force ? 0 : err_set(err, -EBUSY, "Device '%s' is locked", device);
}

int vm_block_resize(struct vm *vm, const char *device, u64 bytes, struct error *err)
{
	vm->value = (u32)(bytes / MiB);
	return 0;
}

int vm_set_throttle(struct vm *vm, const char *device, const struct vm_throttle *t,
		    struct error *err)
{
	vm->value = (u32)(t->bps[0] + t->bps[2] * 10 + t->iops[2] * 100);
	return 0;
}

int vm_load_waiting(struct vm *vm, struct printer *p, struct error *err)
{
	vm->loads++;
	return 0;
}

void vm_quit(struct vm *vm)
{
	vm->quits++;
}

#define FAKE_INFO(what)                                                                            \
	void vm_info_##what(struct vm *vm, struct printer *p)                                      \
	{                                                                                          \
		print_to(p, "fake " #what "\n");                                                   \
	}
FAKE_INFO(status)
FAKE_INFO(name)
FAKE_INFO(uuid)
FAKE_INFO(kvm)
FAKE_INFO(blockstats)
FAKE_INFO(mtree)
FAKE_INFO(pci)
FAKE_INFO(qtree)
FAKE_INFO(irq)
FAKE_INFO(chardev)
FAKE_INFO(mice)
FAKE_INFO(vnc)

void vm_info_cpus(struct vm *vm, u32 current, struct printer *p)
{
	print_to(p, "current %u\n", current);
}

int vm_info_registers(struct vm *vm, u32 cpu, bool all, struct printer *p, struct error *err)
{
	print_to(p, "registers of %u%s\n", cpu, all ? " and all" : "");
	return 0;
}

#define INFO_OF_CPU(what)                                                                          \
	int vm_info_##what(struct vm *vm, u32 cpu, struct printer *p, struct error *err)           \
	{                                                                                          \
		print_to(p, #what " of %u\n", cpu);                                                \
		return 0;                                                                          \
	}
INFO_OF_CPU(lapic)
INFO_OF_CPU(mem)
INFO_OF_CPU(tlb)
int vm_info_pic(struct vm *vm, struct printer *p, struct error *err)
{
	return 0;
}

int vm_info_block(struct vm *vm, bool nodes, bool verbose, const char *device, struct printer *p,
		  struct error *err)
{
	if (device && strcmp(device, "ide0-hd0"))
		return err_set(err, -ENODEV, "Device '%s' not found", device);
	print_to(p, "block n=%d v=%d %s\n", nodes, verbose, device ? device : "all");
	return 0;
}

FAKE_INFO(snapshot_job)

/* savevm ends when the test says so. */
int vm_savevm(struct vm *vm, const struct vm_savevm *opt, struct vm_waiter *w, struct error *err)
{
	if (opt->tag && !strcmp(opt->tag, "bad"))
		return err_set(err, -EINVAL, "no such thing");
	vm->waiter = w;
	vm->savevms++;
	return 0;
}

void vm_forget_waiter(struct vm *vm, struct vm_waiter *w)
{
	assert_ptr_equal(vm->waiter, w);
	vm->waiter = NULL;
}

static void end_savevm(struct vm *vm, int ret, const char *text)
{
	struct vm_waiter *w = vm->waiter;

	vm->waiter = NULL;
	w->done(w, ret, text);
}

int vm_snapshot_cancel(struct vm *vm, struct error *err)
{
	vm->cancels++;
	return 0;
}

int vm_loadvm(struct vm *vm, const char *tag, struct printer *p, struct error *err)
{
	print_to(p, "  saved: a\n  now: b\n");
	return err_set(err, -EINVAL, "%s differs", tag);
}

int vm_snapshot_blkdev(struct vm *vm, struct vm_snapshot_blkdev *s, struct printer *p,
		       struct error *err)
{
	print_to(p, "overlay %s on %s\n", s->file, s->device);
	return 0;
}

int vm_snapshot_blkdev_all(struct vm *vm, const char *suffix, bool needed, struct printer *p,
			   struct error *err)
{
	return 0;
}

int vm_snapshot_blkdev_internal(struct vm *vm, const char *device, const char *name,
				struct error *err)
{
	return 0;
}

int vm_snapshot_delete_blkdev_internal(struct vm *vm, const char *device, const char *name,
				       const char *id, struct error *err)
{
	return 0;
}

int vm_snapshot_revert(struct vm *vm, const char *device, struct error *err)
{
	return 0;
}

int vm_commit(struct vm *vm, const char *device, struct vm_waiter *w, struct error *err)
{
	return err_set(err, -ENODEV, "Device '%s' not found", device);
}

int vm_snapshot_merge(struct vm *vm, const char *device, struct vm_waiter *w, struct error *err)
{
	return err_set(err, -ENODEV, "Device '%s' not found", device);
}

void vm_forget_block_waiter(struct vm *vm, struct vm_waiter *w)
{
}

int vm_block_wait_cancel(struct vm *vm, struct error *err)
{
	return 0;
}

int vm_block_stream(struct vm *vm, const struct vm_block_job *job, struct error *err)
{
	return 0;
}

int vm_block_commit(struct vm *vm, const struct vm_block_job *job, struct error *err)
{
	return err_set(err, -EINVAL, "top %s base %s speed %llu", job->top, job->base,
		       (unsigned long long)job->speed);
}

int vm_block_job_control(struct vm *vm, const char *device, enum vm_job_verb verb, u64 value,
			 struct error *err)
{
	return err_set(err, -EINVAL, "verb %d value %llu", (int)verb, (unsigned long long)value);
}

void vm_info_block_jobs(struct vm *vm, struct printer *p)
{
}

int vm_delvm(struct vm *vm, const char *tag, struct vm_waiter *w, struct error *err)
{
	return 1;
}

int vm_info_snapshots(struct vm *vm, struct printer *p, struct error *err)
{
	print_to(p, "There is no snapshot available.\n");
	return 0;
}

int vm_read_physical(struct vm *vm, u64 gpa, void *buf, size_t bytes, struct error *err)
{
	if (gpa + bytes > sizeof(vm->memory))
		return err_set(err, -EFAULT, "no memory at 0x%llx", (unsigned long long)gpa);
	memcpy(buf, vm->memory + gpa, bytes);
	return 0;
}

int vm_read_virtual(struct vm *vm, u32 cpu, u64 gva, void *buf, size_t bytes, struct error *err)
{
	return vm_read_physical(vm, gva - 0x1000, buf, bytes, err);
}

int vm_translate(struct vm *vm, u32 cpu, u64 gva, u64 *gpa, struct error *err)
{
	*gpa = gva - 0x1000;
	return gva < 0x1000 ? err_set(err, -EFAULT, "not mapped") : 0;
}

int vm_port_read(struct vm *vm, u16 port, unsigned size, u32 *value, struct error *err)
{
	*value = 0xa5;
	vm->port = port;
	vm->size = size;
	return 0;
}

int vm_port_write(struct vm *vm, u16 port, unsigned size, u32 value, struct error *err)
{
	vm->port = port;
	vm->size = size;
	vm->value = value;
	return 0;
}

int vm_register(struct vm *vm, u32 cpu, const char *name, u64 *value)
{
	if (strcmp(name, "eip"))
		return -ENOENT;
	*value = 0xfff0 + cpu;
	return 0;
}

int vm_screendump(struct vm *vm, const char *path, const char *format, struct error *err)
{
	snprintf(vm->log, sizeof(vm->log), "picture %s %s", path, format ? format : "-");
	return 0;
}

void vm_mouse_move(struct vm *vm, s32 dx, s32 dy, s32 dz)
{
	snprintf(vm->log, sizeof(vm->log), "move %d %d %d", dx, dy, dz);
}

void vm_mouse_button(struct vm *vm, u32 buttons)
{
	snprintf(vm->log, sizeof(vm->log), "buttons %u", buttons);
}

int vm_mouse_set(struct vm *vm, u32 number, struct error *err)
{
	return err_set(err, -ENOENT, "Mouse at index '%u' not found", number);
}

bool vm_vnc_takes_passwords(struct vm *vm, const char *display)
{
	return vm->running;
}

int vm_vnc_set_password(struct vm *vm, const char *display, const char *password, struct error *err)
{
	if (!vm->running)
		return err_set(err, -EINVAL, "Could not set password");
	snprintf(vm->log, sizeof(vm->log), "password %s", password);
	return 0;
}

int vm_vnc_expire(struct vm *vm, const char *display, const char *when, struct error *err)
{
	snprintf(vm->log, sizeof(vm->log), "expires %s", when);
	return 0;
}

int vm_key(struct vm *vm, u32 keycode, bool pressed, struct error *err)
{
	assert_true(vm->n_keys < ARRAY_LEN(vm->keys));
	vm->keys[vm->n_keys++] = keycode | (pressed ? 0 : 0x100);
	return 0;
}

/* --- typing ------------------------------------------------------------------------ */

struct fixture {
	struct vm vm;
	struct chardev *c;
	struct monitor *mon;
	struct error err;
	int host[2];
	char text[65536];
};

static void turn(struct fixture *x, unsigned ms)
{
	run_turns(x->vm.loop, ms);
}

static void setup(struct fixture *x)
{
	memset(x, 0, sizeof(*x));
	assert_int_equal(loop_new(&x->vm.loop, "main", LOOP_AUTO, &x->err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, x->host), 0);
	assert_int_equal(
		chardev_from_fds(&x->c, x->vm.loop, "test", x->host[0], x->host[0], &x->err), 0);
	assert_int_equal(monitor_new(&x->mon, &x->vm, x->c, &x->err), 0);
}

static void teardown(struct fixture *x)
{
	monitor_free(x->mon);
	chardev_close(x->c);
	loop_free(x->vm.loop);
	close(x->host[1]);
}

/* Type a line; everything that came back, without the \r. */
static const char *type(struct fixture *x, const char *line)
{
	char part[4096];
	size_t used = 0;
	ssize_t n;

	assert_int_equal(write(x->host[1], line, strlen(line)), strlen(line));
	turn(x, 5);
	while ((n = read(x->host[1], part, sizeof(part))) > 0)
		for (ssize_t i = 0; i < n; i++)
			if (part[i] != '\r' && used < sizeof(x->text) - 1)
				x->text[used++] = part[i];
	x->text[used] = 0;
	return x->text;
}

/* Type a line and look at what stands between its echo and the next prompt. */
static void answer_is(struct fixture *x, const char *line, const char *expected)
{
	AUTO_FREE char *typed = xasprintf("%s\r", line);
	AUTO_FREE char *all = xasprintf("%s\n%s(cowvm) ", line, expected);

	assert_string_equal(type(x, typed), all);
}

static void greets_and_prompts(void **state)
{
	static struct fixture x;

	setup(&x);
	assert_string_equal(type(&x, ""), "cowvm " COWVM_VERSION
					  " monitor - type 'help' for more information\n(cowvm) ");
	answer_is(&x, "", "");
	teardown(&x);
}

static void runs_commands_and_aliases(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	answer_is(&x, "c", "");
	assert_true(x.vm.running);
	answer_is(&x, "cont", "Error: already running\n");
	answer_is(&x, "stop", "");
	assert_false(x.vm.running);
	answer_is(&x, "system_reset", "");
	assert_int_equal(x.vm.resets, 1);
	answer_is(&x, "info status", "fake status\n");
	answer_is(&x, "info version", COWVM_VERSION "\n");
	answer_is(&x, "  info   block  ", "block n=0 v=0 all\n");
	answer_is(&x, "info block -v ide0-hd0", "block n=0 v=1 ide0-hd0\n");
	answer_is(&x, "info block nosuch", "Error: Device 'nosuch' not found\n");
	answer_is(&x, "info registers -a", "registers of 0 and all\n");
	answer_is(&x, "info lapic 99", "Error: CPU#99 not available\n");
	answer_is(&x, "cpu 1", "");
	answer_is(&x, "info cpus", "current 1\n");
	answer_is(&x, "nmi", "");
	assert_int_equal(x.vm.nmis, 2);
	answer_is(&x, "cpu 2", "Error: invalid CPU index\n");
	teardown(&x);
}

static void commands_of_screen_and_mouse_reach_the_machine(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	answer_is(&x, "screendump a.png -f png", "");
	assert_string_equal(x.vm.log, "picture a.png png");
	answer_is(&x, "screendump a.ppm", "");
	assert_string_equal(x.vm.log, "picture a.ppm -");
	answer_is(&x, "mouse_move -3 4", "");
	assert_string_equal(x.vm.log, "move -3 4 0");
	answer_is(&x, "mouse_move 1 2 -1", "");
	assert_string_equal(x.vm.log, "move 1 2 -1");
	answer_is(&x, "mouse_button 5", "");
	assert_string_equal(x.vm.log, "buttons 5");
	answer_is(&x, "mouse_set 9", "Mouse at index '9' not found\n");
	answer_is(&x, "expire_password vnc +60", "");
	assert_string_equal(x.vm.log, "expires +60");
	teardown(&x);
}

static void passwords_are_set_or_asked_for(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	x.vm.running = false;
	answer_is(&x, "set_password vnc abc",
		  "If you want use passwords please enable password auth using '-vnc "
		  "${dpy},password'.\nError: Could not set password\n");
	x.vm.running = true;
	answer_is(&x, "set_password vnc abc -d vnc1 keep", "");
	assert_string_equal(x.vm.log, "password abc");
	answer_is(&x, "set_password vnc abc fail", "Error: Invalid parameter 'connected'\n");
	answer_is(&x, "set_password vnc abc a", "Error: invalid parameter value: a\n");
	answer_is(&x, "set_password foo bar", "Error: invalid parameter value: foo\n");
	answer_is(&x, "change vnc foo", "Expected 'password' after 'vnc'\n");
	answer_is(&x, "change vnc",
		  "change: filename expected\nTry \"help change\" for more information\n");
	answer_is(&x, "change vnc password xyz", "");
	assert_string_equal(x.vm.log, "password xyz");
	type(&x, "change vnc password\r");
	type(&x, "secret\r");
	assert_string_equal(x.vm.log, "password secret");
	teardown(&x);
}

static void bad_lines_get_the_references_words(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	answer_is(&x, "foo", "unknown command: 'foo'\n");
	answer_is(&x, "info foo", "unknown command: 'info foo'\n");
	answer_is(&x, "stop 1",
		  "stop|s: extraneous characters at the end of line\n"
		  "Try \"help stop\" for more information\n");
	answer_is(&x, "x", "unexpected end of expression\nTry \"help x\" for more information\n");
	answer_is(&x, "x /4q 0",
		  "invalid char in format: 'q'\nTry \"help x\" for more information\n");
	answer_is(&x, "info block -x",
		  "info block: unsupported option -x\n"
		  "Try \"help info block\" for more information\n");
	answer_is(&x, "sendkey",
		  "sendkey: string expected\nTry \"help sendkey\" for more information\n");
	answer_is(&x, "sendkey foo", "invalid parameter: foo\n");
	answer_is(&x, "screendump a.png -f png", "");
	assert_string_equal(x.vm.log, "picture a.png png");
	answer_is(&x, "screendump a.ppm", "");
	assert_string_equal(x.vm.log, "picture a.ppm -");
	answer_is(&x, "screendump a.ppm -f",
		  "screendump: string expected\nTry \"help screendump\" for more information\n");
	answer_is(&x, "help nosuch", "unknown command: 'nosuch'\n");
	answer_is(&x, "p $nosuch", "unknown register\nTry \"help print\" for more information\n");
	answer_is(&x, "p 1/0", "division by zero\nTry \"help print\" for more information\n");
	teardown(&x);
}

static void expressions_have_the_references_precedence(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	answer_is(&x, "p 1+2*3", "0x7\n");
	answer_is(&x, "p (1 + 2)*3", "0x9\n");
	answer_is(&x, "p 6-1&3", "0x5\n");
	answer_is(&x, "p/d -7", "-7\n");
	answer_is(&x, "p /x ~0", "0xffffffffffffffff\n");
	answer_is(&x, "p $eip+0x10", "0x10000\n");
	answer_is(&x, "p /c 65", "'A'\n");
	answer_is(&x, "p 'a'", "0x61\n");
	teardown(&x);
}

static void dumps_memory_as_the_reference_does(void **state)
{
	static struct fixture x;

	setup(&x);
	for (unsigned i = 0; i < sizeof(x.vm.memory); i++)
		x.vm.memory[i] = (u8)(i + 0x3e);
	type(&x, "");
	answer_is(&x, "xp /9xb 0",
		  "0000000000000000: 0x3e 0x3f 0x40 0x41 0x42 0x43 0x44 0x45\n"
		  "0000000000000008: 0x46\n");
	answer_is(&x, "xp /5xw 0xf0",
		  "00000000000000f0: 0x31302f2e 0x35343332 0x39383736 0x3d3c3b3a\n"
		  "0000000000000100: Cannot access memory\n");
	answer_is(&x, "x /3c 0x1000", "0000000000001000: '>' '?' '@'\n");
	answer_is(&x, "xp /2dh 0", "0000000000000000: 16190 16704\n");
	answer_is(&x, "xp /2ob 0", "0000000000000000: 0076 0077\n");
	answer_is(&x, "gva2gpa 0x1234", "gpa: 0x234\n");
	answer_is(&x, "gva2gpa 0", "Unmapped\n");
	teardown(&x);
}

static void ports_are_read_and_written(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	answer_is(&x, "i /b 0x60", "portb[0x0060] = 0xa5\n");
	assert_int_equal(x.vm.size, 1);
	answer_is(&x, "i /xh 0x60", "portw[0x0060] = 0x00a5\n");
	answer_is(&x, "o /b 0x80 0x12", "");
	assert_int_equal(x.vm.port, 0x80);
	assert_int_equal(x.vm.value, 0x12);
	assert_int_equal(x.vm.size, 1);
	teardown(&x);
}

static void keys_are_held_and_chords_wait_for_each_other(void **state)
{
	static const u32 expected[] = {0x1d, 0x38, 0x53 | 0x80, 0x1d3, 0x138, 0x11d, 0x1e, 0x11e};
	static struct fixture x;
	u64 start;

	setup(&x);
	type(&x, "");
	start = now_ns();
	answer_is(&x, "sendkey ctrl-alt-delete 400", "");
	answer_is(&x, "sendkey a 30", "");
	if (now_ns() - start < 400 * NS_PER_MS) /* or the host let us wait for so long */
		assert_int_equal(x.vm.n_keys, 3);
	for (unsigned i = 0; i < 600 && x.vm.n_keys < ARRAY_LEN(expected); i++)
		turn(&x, 100);
	assert_int_equal(x.vm.n_keys, ARRAY_LEN(expected));
	assert_memory_equal(x.vm.keys, expected, sizeof(expected));
	teardown(&x);
}

static void lines_are_edited_completed_and_remembered(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	assert_non_null(strstr(type(&x, "info stu\177atus\r"), "fake status\n"));
	assert_non_null(strstr(type(&x, "info stat\t\r"), "fake status\n"));
	assert_non_null(strstr(type(&x, "system_r\t\r"), "system_reset"));
	assert_int_equal(x.vm.resets, 1);
	assert_non_null(strstr(type(&x, "\033[A\033[A\r"), "fake status\n"));
	answer_is(&x, "info history",
		  "0: 'info status'\n1: 'info status '\n2: 'system_reset '\n3: 'info status '\n"
		  "4: 'info history'\n");
	teardown(&x);
}

static void two_monitors_keep_their_own_lines(void **state)
{
	static struct fixture x, y;
	struct loop *own;

	setup(&x);
	setup(&y);
	own = y.vm.loop;
	type(&x, "");
	type(&y, "");
	assert_string_equal(type(&x, "info na"), "info na");
	answer_is(&y, "info uuid", "fake uuid\n");
	assert_non_null(strstr(type(&x, "me\r"), "fake name\n"));
	assert_ptr_equal(own, y.vm.loop);
	teardown(&x);
	answer_is(&y, "info name", "fake name\n");
	teardown(&y);
}

static void nothing_runs_after_quit(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	type(&x, "quit\rsystem_reset\r");
	assert_int_equal(x.vm.quits, 1);
	assert_int_equal(x.vm.resets, 0);
	teardown(&x);
}

static void a_command_that_takes_its_time_holds_the_prompt(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	assert_string_equal(type(&x, "savevm one\r"), "savevm one\n");
	assert_string_equal(type(&x, "info name\rinfo u"), "");
	assert_int_equal(x.vm.cancels, 0);
	end_savevm(&x.vm, 0, NULL);
	assert_string_equal(type(&x, ""), "(cowvm) info name\nfake name\n(cowvm) info u");
	assert_string_equal(type(&x, "uid\r"), "uid\nfake uuid\n(cowvm) ");
	/* Two of them, typed in one go. */
	assert_string_equal(type(&x, "savevm a\rsavevm b\rinfo name\r"), "savevm a\n");
	end_savevm(&x.vm, -ENOSPC, "disk is full");
	assert_string_equal(type(&x, ""), "Error: disk is full\n(cowvm) savevm b\n");
	end_savevm(&x.vm, 0, NULL);
	assert_string_equal(type(&x, ""), "(cowvm) info name\nfake name\n(cowvm) ");
	assert_int_equal(x.vm.savevms, 3);
	answer_is(&x, "savevm bad", "Error: no such thing\n");
	answer_is(&x, "savevm -d x", "");
	answer_is(&x, "loadvm y", "  saved: a\n  now: b\nError: y differs\n");
	teardown(&x);
}

static void ctrl_c_cancels_and_a_peer_that_goes_is_forgotten(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	type(&x, "savevm one\r");
	type(&x, "\003");
	assert_int_equal(x.vm.cancels, 1);
	end_savevm(&x.vm, -ECANCELED, "cancelled");
	assert_string_equal(type(&x, ""), "Error: cancelled\n(cowvm) ");
	type(&x, "savevm two\r");
	assert_non_null(x.vm.waiter);
	teardown(&x);
	assert_null(x.vm.waiter);
}

#define ASKED_0 "hd0 (a) is encrypted.\nPassword: "
#define ASKED_1 "hd1 (b) is encrypted.\nPassword: "

static void cont_asks_for_the_passphrase_of_every_locked_image(void **state)
{
	static struct fixture x;

	setup(&x);
	x.vm.locked[0] = "hd0 (a)";
	x.vm.locked[1] = "hd1 (b)";
	type(&x, "");
	assert_string_equal(type(&x, "cont\r"), "cont\n" ASKED_0);
	assert_string_equal(type(&x, "wrongx\177\r"), "\nInvalid password\n" ASKED_0);
	assert_string_equal(type(&x, "junk\025right\r"), "\n" ASKED_1);
	assert_false(x.vm.running);
	assert_string_equal(type(&x, "right\r"), "\n(cowvm) ");
	assert_true(x.vm.running);
	assert_int_equal(x.vm.loads, 1);
	answer_is(&x, "info history", "0: 'cont'\n1: 'info history'\n");
	teardown(&x);
}

static void passphrases_typed_ahead_are_not_taken_for_commands(void **state)
{
	static struct fixture x;

	setup(&x);
	x.vm.locked[0] = "hd0 (a)";
	x.vm.locked[1] = "hd1 (b)";
	type(&x, "");
	assert_string_equal(type(&x, "c\rright\rright\rinfo name\r"),
			    "c\n" ASKED_0 "\n" ASKED_1 "\n(cowvm) info name\nfake name\n(cowvm) ");
	assert_true(x.vm.running);
	teardown(&x);
}

static void three_wrong_passphrases_or_ctrl_c_end_the_question(void **state)
{
	static struct fixture x;

	setup(&x);
	x.vm.locked[0] = "hd0 (a)";
	type(&x, "");
	type(&x, "cont\r1\r2\r");
	assert_string_equal(type(&x, "3\r"), "\nError: Invalid password\n(cowvm) ");
	type(&x, "cont\r");
	assert_string_equal(type(&x, "righ\003"), "\nError: hd0 (a) is still encrypted\n(cowvm) ");
	type(&x, "cont\r");
	assert_string_equal(type(&x, "broken\r"), "\nError: Unable to read key slots\n(cowvm) ");
	assert_false(x.vm.running);
	type(&x, "cont\rrig"); /* and the peer goes */
	teardown(&x);
}

static void block_passwd_unlocks_one_drive(void **state)
{
	static struct fixture x;

	setup(&x);
	x.vm.locked[0] = "hd0 (a)";
	x.vm.locked[1] = "hd1 (b)";
	type(&x, "");
	answer_is(&x, "block_passwd hd2 right", "Error: Device 'hd2' not found\n");
	answer_is(&x, "block_passwd hd1 right", "Error: Device 'hd1' is not locked\n");
	answer_is(&x, "block_passwd hd0 wrong", "Error: Invalid password\n");
	answer_is(&x, "block_passwd hd0 right", "");
	assert_string_equal(type(&x, "block_passwd hd1\r"), "block_passwd hd1\n" ASKED_1);
	assert_string_equal(type(&x, "right\r"), "\n(cowvm) ");
	assert_int_equal(x.vm.unlocked, 2);
	assert_false(x.vm.running);
	/* What was typed there does not come back with the cursor keys. */
	assert_null(strstr(type(&x, "info history\r"), "right"));
	teardown(&x);
}

static void drives_take_media_sizes_and_limits(void **state)
{
	static struct fixture x;

	setup(&x);
	type(&x, "");
	answer_is(&x, "eject hd0", "Error: Device 'hd0' is locked\n");
	answer_is(&x, "eject -f hd0", "");
	answer_is(&x, "change hd0 -f file raw read-only", "");
	answer_is(&x, "change hd0 file raw no", "Error: invalid parameter value: no\n");
	answer_is(&x, "change hd0",
		  "change: filename expected\nTry \"help change\" for more information\n");
	answer_is(&x, "block_resize hd0 10", "");
	assert_int_equal(x.vm.value, 10);
	answer_is(&x, "block_resize hd0 2G", "");
	assert_int_equal(x.vm.value, 2048);
	answer_is(&x, "block_set_io_throttle hd0 1 0 2 0 0 3", "");
	assert_int_equal(x.vm.value, 321);
	teardown(&x);
}

static void help_lists_every_command(void **state)
{
	static struct fixture x;
	const char *text;

	setup(&x);
	type(&x, "");
	text = type(&x, "help\r");
	assert_non_null(strstr(text, "\nstop|s  -- stop emulation\n"));
	assert_non_null(strstr(text, "\nxp /fmt addr -- physical memory dump"));
	assert_non_null(strstr(type(&x, "info\r"), "\ninfo status  -- show the current VM status"));
	answer_is(&x, "help info uuid", "info uuid  -- show the current VM UUID\n");
	teardown(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(greets_and_prompts),
		cmocka_unit_test(runs_commands_and_aliases),
		cmocka_unit_test(commands_of_screen_and_mouse_reach_the_machine),
		cmocka_unit_test(passwords_are_set_or_asked_for),
		cmocka_unit_test(bad_lines_get_the_references_words),
		cmocka_unit_test(expressions_have_the_references_precedence),
		cmocka_unit_test(dumps_memory_as_the_reference_does),
		cmocka_unit_test(ports_are_read_and_written),
		cmocka_unit_test(keys_are_held_and_chords_wait_for_each_other),
		cmocka_unit_test(lines_are_edited_completed_and_remembered),
		cmocka_unit_test(two_monitors_keep_their_own_lines),
		cmocka_unit_test(nothing_runs_after_quit),
		cmocka_unit_test(a_command_that_takes_its_time_holds_the_prompt),
		cmocka_unit_test(ctrl_c_cancels_and_a_peer_that_goes_is_forgotten),
		cmocka_unit_test(cont_asks_for_the_passphrase_of_every_locked_image),
		cmocka_unit_test(passphrases_typed_ahead_are_not_taken_for_commands),
		cmocka_unit_test(three_wrong_passphrases_or_ctrl_c_end_the_question),
		cmocka_unit_test(block_passwd_unlocks_one_drive),
		cmocka_unit_test(drives_take_media_sizes_and_limits),
		cmocka_unit_test(help_lists_every_command),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
