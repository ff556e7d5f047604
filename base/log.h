/* Messages for people and trace lines for developers.
 *
 * One line each, subject first: log_error("hda: ...").  Any thread; a line is
 * written in one piece.  Goes to stderr, or to the file of -D. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/base.h"
#include "base/error.h"

void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* As it stands, without the program's name: for warnings whose words are known. */
void log_text(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* For lines that a guest can cause: at most 5 a second for each place, then a
 * count of what was left out. */
struct log_limit {
	u64 second;	 /* second of the last line */
	u32 lines, lost; /* [atomic] */
};
void log_limited(struct log_limit *limit, const char *fmt, ...) PRINTF_LIKE(2, 3);
#define log_guest(...)                                                                             \
	do {                                                                                       \
		static struct log_limit log_limit_;                                                \
		log_limited(&log_limit_, __VA_ARGS__);                                             \
	} while (0)

/* The name put before each message ("cowvm: ..."): lent for ever. */
void log_set_program(const char *name);
const char *log_program(void);

/* Append to this file from now on (-D); NULL: stderr. */
int log_set_file(const char *path, struct error *err);

/* Trace areas, one bit each: -trace area[,area...] or "all". */
enum trace_area {
	TRACE_KVM,
	TRACE_BUS,
	TRACE_PCI,
	TRACE_IRQ,
	TRACE_CLOCK,
	TRACE_STATE,
	TRACE_LOOP,
	TRACE_BLOCK,
	TRACE_QCOW2,
	TRACE_IDE,
	TRACE_VIRTIO,
	TRACE_VGA,
	TRACE_SERIAL,
	TRACE_PS2,
	TRACE_RTC,
	TRACE_FWCFG,
	TRACE_ACPI,
	TRACE_CHARDEV,
	TRACE_MONITOR,
	TRACE_FIRMWARE,
	TRACE_AREAS
};
extern u32 trace_mask; /* [atomic, relaxed] written by trace_set only */
const char *trace_area_name(enum trace_area area);
/* Switch the named area (or "all") on or off; -ENOENT if there is none. */
int trace_set(const char *area, bool on);
void trace_line(enum trace_area area, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define TRACE(area, ...)                                                                           \
	do {                                                                                       \
		if (unlikely(trace_mask & (1u << (area))))                                         \
			trace_line((area), __VA_ARGS__);                                           \
	} while (0)

#endif
