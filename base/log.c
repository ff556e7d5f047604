/* The process's log; see log.h.  The only file with mutable file-scope state:
 * a process has one standard error. */
#define _GNU_SOURCE
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

u32 trace_mask;
static const char *program = "cowvm";
static int log_fd = STDERR_FILENO;

static const char *const area_names[TRACE_AREAS] = {
	[TRACE_KVM] = "kvm",	     [TRACE_BUS] = "bus",	    [TRACE_PCI] = "pci",
	[TRACE_IRQ] = "irq",	     [TRACE_CLOCK] = "clock",	    [TRACE_STATE] = "state",
	[TRACE_LOOP] = "loop",	     [TRACE_BLOCK] = "block",	    [TRACE_QCOW2] = "qcow2",
	[TRACE_IDE] = "ide",	     [TRACE_VIRTIO] = "virtio",	    [TRACE_VGA] = "vga",
	[TRACE_SERIAL] = "serial",   [TRACE_PS2] = "ps2",	    [TRACE_RTC] = "rtc",
	[TRACE_FWCFG] = "fwcfg",     [TRACE_ACPI] = "acpi",	    [TRACE_CHARDEV] = "chardev",
	[TRACE_MONITOR] = "monitor", [TRACE_FIRMWARE] = "firmware",
};

static void write_line(const char *prefix, const char *fmt, va_list ap)
{
	char line[1024];
	int n = snprintf(line, sizeof(line) - 1, "%s", prefix), m;
	ssize_t done;

	m = vsnprintf(line + n, sizeof(line) - 1 - (size_t)n, fmt, ap);
	n = MIN(n + MAX(m, 0), (int)sizeof(line) - 2);
	line[n++] = '\n';
	/* One write, so that lines of several threads do not mix. */
	do
		done = write(__atomic_load_n(&log_fd, __ATOMIC_RELAXED), line, (size_t)n);
	while (done < 0 && errno == EINTR);
}

static void message(const char *severity, const char *fmt, va_list ap)
{
	char prefix[96];

	snprintf(prefix, sizeof(prefix), "%s: %s", program, severity);
	write_line(prefix, fmt, ap);
}

void log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message("", fmt, ap);
	va_end(ap);
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message("warning: ", fmt, ap);
	va_end(ap);
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message("info: ", fmt, ap);
	va_end(ap);
}

void log_text(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_line("", fmt, ap);
	va_end(ap);
}

void log_limited(struct log_limit *limit, const char *fmt, ...)
{
	struct timespec now;
	va_list ap;
	u32 lost;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	/* Racing threads may let a line more through; nothing depends on it. */
	if (__atomic_exchange_n(&limit->second, (u64)now.tv_sec, __ATOMIC_RELAXED) !=
	    (u64)now.tv_sec) {
		__atomic_store_n(&limit->lines, 0, __ATOMIC_RELAXED);
		lost = __atomic_exchange_n(&limit->lost, 0, __ATOMIC_RELAXED);
		if (lost)
			log_warn("%u more lines like the next one were left out", lost);
	}
	if (__atomic_add_fetch(&limit->lines, 1, __ATOMIC_RELAXED) > 5) {
		__atomic_add_fetch(&limit->lost, 1, __ATOMIC_RELAXED);
		return;
	}
	va_start(ap, fmt);
	message("warning: ", fmt, ap);
	va_end(ap);
}

void log_set_program(const char *name)
{
	program = name;
}

const char *log_program(void)
{
	return program;
}

int log_set_file(const char *path, struct error *err)
{
	int fd = STDERR_FILENO, old;

	if (path) {
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (fd < 0)
			return err_set_errno(err, -errno, "cannot open log file '%s'", path);
	}
	old = __atomic_exchange_n(&log_fd, fd, __ATOMIC_RELAXED);
	if (old != STDERR_FILENO)
		close(old);
	return 0;
}

const char *trace_area_name(enum trace_area area)
{
	return area_names[area];
}

int trace_set(const char *area, bool on)
{
	u32 bits = 0;

	for (unsigned i = 0; i < TRACE_AREAS; i++)
		if (!strcasecmp(area, "all") || !strcasecmp(area, area_names[i]))
			bits |= 1u << i;
	if (!bits)
		return -ENOENT;
	if (on)
		__atomic_or_fetch(&trace_mask, bits, __ATOMIC_RELAXED);
	else
		__atomic_and_fetch(&trace_mask, ~bits, __ATOMIC_RELAXED);
	return 0;
}

void trace_line(enum trace_area area, const char *fmt, ...)
{
	struct timespec now;
	char prefix[48];
	va_list ap;

	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(prefix, sizeof(prefix), "%ld.%06ld %s: ", (long)now.tv_sec, now.tv_nsec / 1000,
		 area_names[area]);
	va_start(ap, fmt);
	write_line(prefix, fmt, ap);
	va_end(ap);
}
