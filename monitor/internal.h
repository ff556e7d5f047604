/* Shared by the files of the monitor.  Thread: main, everywhere. */
#ifndef MONITOR_INTERNAL_H
#define MONITOR_INTERNAL_H

#include "base/base.h"
#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"
#include "vmm/control.h"

/* --- commands (commands.c, hmp.c) ---------------------------------------------- */

/* How x, xp, p, i and o show a value: "/20xw". */
struct value_format {
	u32 count;   /* 1 if not given */
	char digits; /* x d u o c i; 0: the command's default */
	u8 bytes;    /* 1 2 4 8; 0: default */
};

#define CMD_ARGS 8

/* A parsed line.  Positions are those of the row's `args` words that are no flags. */
struct cmd_args {
	u32 flags; /* bit N: letter 'a' + N was given as -letter */
	struct value_format format;
	u64 number[CMD_ARGS];
	const char *text[CMD_ARGS]; /* NULL: optional and not given */
	bool given[CMD_ARGS];
};

/* Where a command runs: lent for the call. */
struct cmd_ctx {
	struct vm *vm;
	struct monitor *mon; /* NULL: a line run for somebody else */
	struct printer *out;
	struct key_sender *keys;
	struct line_editor *editor; /* for its history; NULL: none */
	u32 *cpu;		    /* the monitor's current vCPU */
	bool *done;		    /* set: take no further lines */
};

/* One row a command; the table is sorted by name and ends with name NULL. */
struct cmd {
	const char *name;   /* with aliases: "stop|s" */
	const char *args;   /* words: "-a" flag, "-as" flag with a text, "/" format, "l" number, "s"
			     * text, "r" rest of the line, "B" device, "F" file, "o" size in MiB or
			     * with a suffix; "?" after it: may be left out */
	const char *params; /* for help: "[-a] device" */
	const char *help;
	/* 0, or a negative errno with the message, which is printed after "Error: ".
	 * One that goes on afterwards has called monitor_suspend. */
	int (*run)(struct cmd_ctx *ctx, const struct cmd_args *args, struct error *err);
	const struct cmd *sub; /* `info` */
};
extern const struct cmd hmp_commands[], hmp_info_commands[];

const struct cmd *cmd_find(const struct cmd *table, const char *name, size_t bytes);
void hmp_run_line(struct cmd_ctx *ctx, const char *line);
void cmd_print_help(struct cmd_ctx *ctx, const char *prefix, const struct cmd *table,
		    const char *name);

/* memory.c */
int cmd_x(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_xp(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_print(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_in(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_out(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_sum(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_gva2gpa(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_memsave(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_pmemsave(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);

/* snapshot.c */
int cmd_savevm(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_loadvm(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_delvm(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_snapshot_cancel(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_info_snapshots(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);
int cmd_info_snapshot_job(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err);

/* --- expressions (expr.c) -------------------------------------------------------- */

/* Evaluate the expression at *text and step behind it.  Operators by rising
 * binding: + -, & | ^, * / %, unary; $name is a register of vCPU cpu. */
int expr_eval(struct vm *vm, u32 cpu, const char **text, u64 *value, struct error *err);

/* --- commands that take their time (monitor.c) ----------------------------------- */

struct monitor;

/* No prompt until monitor_resume; lines typed meanwhile are taken then.  Ctrl-c
 * calls interrupt; gone is called instead of anything else when the monitor ends. */
struct monitor_wait {
	void (*interrupt)(struct monitor_wait *w);
	void (*gone)(struct monitor_wait *w);
	struct monitor *mon; /* set by monitor_suspend */
};
void monitor_suspend(struct monitor *mon, struct monitor_wait *w); /* keeps w */
void monitor_resume(struct monitor *mon);
/* While suspended: ask for a line that is not shown (but for a '*' a character on a
 * terminal).  The text is wiped after answer has returned; NULL: Ctrl-c. */
void monitor_ask_secret(struct monitor *mon, const char *prompt,
			void (*answer)(struct monitor_wait *w, const char *text));
struct printer *monitor_printer(struct monitor *mon);
bool monitor_is_terminal(const struct monitor *mon);

/* --- keys (sendkey.c) --------------------------------------------------------------- */

/* Keys that go to the guest one chord after the other. */
struct key_sender {
	struct vm *vm;
	struct loop_timer timer;
	struct list chords; /* first: pressed now */
	u32 n_chords;
};
void key_sender_init(struct key_sender *k, struct vm *vm);
void key_sender_fini(struct key_sender *k); /* releases what is pressed */
/* "ctrl-alt-f1": queue it to be held for hold_ms. */
int key_sender_send(struct key_sender *k, const char *chord, u32 hold_ms, struct error *err);
/* The nth key name that starts with prefix, NULL behind the last. */
const char *key_name_match(const char *prefix, unsigned nth);

/* --- line editing (readline.c) --------------------------------------------------------- */

struct line_editor;
struct line_editor_ops {
	void (*write)(void *arg, const char *data, size_t bytes);
	void (*line)(void *arg, const char *line);
};
/* term: terminal type for readline; NULL: none ("dumb"). */
struct line_editor *line_editor_new(const struct line_editor_ops *ops, void *arg,
				    const char *prompt, const char *term);
void line_editor_free(struct line_editor *ed);
/* Show the prompt on a new line (the first, or after losing the screen). */
void line_editor_prompt(struct line_editor *ed);
/* Returns how many bytes were taken: less than all when a command suspended it. */
size_t line_editor_input(struct line_editor *ed, const u8 *data, size_t bytes);
/* Between these no prompt is shown and nothing may be put in. */
void line_editor_suspend(struct line_editor *ed);
void line_editor_resume(struct line_editor *ed);
bool line_editor_is_suspended(const struct line_editor *ed);
/* The nth remembered line, oldest first; NULL behind the last. */
const char *line_editor_history(struct line_editor *ed, unsigned nth);

#endif
