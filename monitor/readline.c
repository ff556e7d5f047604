/* Line editing for several monitors at once, on GNU readline.
 *
 * readline keeps one line in global variables.  It serves whichever editor got
 * the last byte; when another one gets input, the unfinished line of the first is
 * put aside as text and taken up again later.  That switch, and the pointer to
 * the editor being served, are the only file-scope state, and it is readline's:
 * its callbacks carry no argument.  Thread: main. */
#define _GNU_SOURCE
#include "monitor/internal.h"

#include <stdio.h>

#include <readline/history.h>
#include <readline/readline.h>

#include <sys/ioctl.h>
#include <unistd.h>

#define HISTORY_LINES 500
/* No terminal: wide enough that no line is ever scrolled sideways. */
#define DUMB_COLUMNS 4096

struct line_editor {
	const struct line_editor_ops *ops;
	void *arg;
	char *prompt, *term;
	FILE *out;
	HISTORY_STATE history;
	char *line; /* put aside: unfinished text */
	int point;
	bool prompted; /* the prompt stands on the screen */
	const u8 *input;
	size_t input_bytes;
	bool freed; /* by its own command: end after it */
	bool busy;  /* bytes are being fed */
	bool suspended;
};

static struct line_editor *served; /* readline's variables are this editor's */

static ssize_t out_write(void *cookie, const char *data, size_t bytes)
{
	struct line_editor *ed = cookie;

	ed->ops->write(ed->arg, data, bytes);
	return (ssize_t)bytes;
}

/* --- callbacks of readline ---------------------------------------------------------- */

static int next_byte(FILE *unused)
{
	if (!served || !served->input_bytes)
		return EOF;
	served->input_bytes--;
	return *served->input++;
}

static int byte_waits(void)
{
	return served && served->input_bytes > 0;
}

/* Lines that end in a password are not for the cursor keys to bring back. */
static bool is_secret(const char *line)
{
	static const char *const starts[] = {"block_passwd ", "set_password "};

	line += strspn(line, " \t");
	for (unsigned i = 0; i < ARRAY_LEN(starts); i++)
		if (!strncmp(line, starts[i], strlen(starts[i])))
			return true;
	return false;
}

static void line_done(char *line)
{
	struct line_editor *ed = served;
	HIST_ENTRY *last;

	if (!line) { /* end of file means nothing on a monitor */
		fputc('\n', ed->out);
		return;
	}
	last = history_length ? history_get(history_base + history_length - 1) : NULL;
	if (*line && (!last || strcmp(last->line, line)) && !is_secret(line))
		add_history(line);
	fflush(ed->out);
	ed->ops->line(ed->arg, line);
	explicit_bzero(line, strlen(line));
	free(line);
	if (ed->suspended) /* the library would prompt */
		rl_callback_handler_remove();
}

/* The word before the one being completed decides what may follow. */
static char *complete_command(const char *text, int state)
{
	const struct cmd *table = hmp_commands;
	static unsigned at; /* readline's generator protocol: state 0 starts anew */
	const char *name;
	int start = 0;

	while (rl_line_buffer[start] == ' ')
		start++;
	if (!strncmp(rl_line_buffer + start, "info ", 5))
		table = hmp_info_commands;
	if (!strncmp(rl_line_buffer + start, "sendkey ", 8)) {
		at = state ? at + 1 : 0;
		name = key_name_match(text, at);
		return name ? strdup(name) : NULL;
	}
	if (!state)
		at = 0;
	for (; table[at].name; at++) {
		size_t n = strcspn(table[at].name, "|");

		if (!strncmp(table[at].name, text, strlen(text)))
			return strndup(table[at++].name, n);
	}
	return NULL;
}

static char **complete(const char *text, int start, int end)
{
	int first = 0, words = 0;

	rl_attempted_completion_over = 1; /* never file names */
	while (rl_line_buffer[first] == ' ')
		first++;
	for (int i = first; i < start; i++)
		words += rl_line_buffer[i] != ' ' &&
			 (i + 1 == start || rl_line_buffer[i + 1] == ' ');
	if (words > 1 || (words == 1 && strncmp(rl_line_buffer + first, "info ", 5) &&
			  strncmp(rl_line_buffer + first, "help ", 5) &&
			  strncmp(rl_line_buffer + first, "sendkey ", 8)))
		return NULL;
	return rl_completion_matches(text, complete_command);
}

/* --- switching ------------------------------------------------------------------------ */

static void put_aside(struct line_editor *ed)
{
	HISTORY_STATE *state;

	free(ed->line);
	ed->line = rl_end ? strndup(rl_line_buffer, (size_t)rl_end) : NULL;
	ed->point = rl_point;
	state = history_get_history_state();
	ed->history = *state;
	free(state);
	rl_callback_handler_remove();
	served = NULL;
}

static void set_screen(struct line_editor *ed)
{
	struct winsize size;

	if (!ed->term || ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col)
		rl_set_screen_size(24, DUMB_COLUMNS);
	else
		rl_set_screen_size(size.ws_row, size.ws_col);
}

static void set_library(struct line_editor *ed)
{
	rl_catch_signals = 0;
	rl_catch_sigwinch = 0;
	rl_change_environment = 0;
	rl_prep_term_function = NULL;
	rl_deprep_term_function = NULL;
	rl_getc_function = next_byte;
	rl_input_available_hook = byte_waits;
	rl_attempted_completion_function = complete;
	rl_completer_word_break_characters = " -";
	rl_completion_query_items = -1;
	rl_readline_name = "cowvm";
	rl_outstream = ed->out;
	rl_terminal_name = ed->term ? ed->term : "dumb";
}

static void serve(struct line_editor *ed)
{
	if (served == ed)
		return;
	if (served)
		put_aside(served);
	served = ed;
	set_library(ed);
	rl_initialize();
	rl_reset_terminal(rl_terminal_name);
	rl_variable_bind("enable-bracketed-paste", "off");
	rl_variable_bind("keyseq-timeout", "0");
	rl_variable_bind("page-completions", "off");
	rl_variable_bind("bell-style", "none");
	rl_tty_set_echoing(1);
	set_screen(ed);
	history_set_history_state(&ed->history);
	stifle_history(HISTORY_LINES);
	if (ed->suspended)
		return;
	rl_already_prompted = ed->prompted;
	rl_callback_handler_install(ed->prompt, line_done);
	rl_already_prompted = 0;
	ed->prompted = true;
	if (ed->line) {
		rl_insert_text(ed->line);
		rl_point = ed->point;
		rl_forced_update_display();
	}
}

/* --- interface --------------------------------------------------------------------------- */

struct line_editor *line_editor_new(const struct line_editor_ops *ops, void *arg,
				    const char *prompt, const char *term)
{
	static const cookie_io_functions_t io = {.write = out_write};
	struct line_editor *ed = xnew(struct line_editor);

	ed->ops = ops;
	ed->arg = arg;
	ed->prompt = xstrdup(prompt);
	ed->term = term ? xstrdup(term) : NULL;
	ed->out = fopencookie(ed, "w", io);
	assert(ed->out);
	return ed;
}

static void destroy(struct line_editor *ed)
{
	if (served == ed) {
		put_aside(ed);
		/* The library must not keep a stream that is about to close. */
		rl_outstream = stdout;
	}
	for (int i = 0; i < ed->history.length; i++)
		free_history_entry(ed->history.entries[i]);
	free(ed->history.entries);
	fclose(ed->out);
	free(ed->line);
	free(ed->prompt);
	free(ed->term);
	free(ed);
}

void line_editor_free(struct line_editor *ed)
{
	if (!ed)
		return;
	ed->freed = true;
	ed->input_bytes = 0;
	if (!ed->busy)
		destroy(ed);
}

void line_editor_prompt(struct line_editor *ed)
{
	ed->prompted = false;
	if (served == ed) {
		rl_on_new_line();
		rl_forced_update_display();
		ed->prompted = true;
		fflush(ed->out);
		return;
	}
	serve(ed);
	fflush(ed->out);
}

void line_editor_suspend(struct line_editor *ed)
{
	ed->suspended = true;
	if (served == ed && !ed->busy)
		rl_callback_handler_remove();
}

void line_editor_resume(struct line_editor *ed)
{
	ed->suspended = false;
	if (ed->busy) /* within its own command: the library prompts afterwards */
		return;
	if (served == ed)
		put_aside(ed);
	ed->prompted = false;
	serve(ed);
	fflush(ed->out);
}

bool line_editor_is_suspended(const struct line_editor *ed)
{
	return ed->suspended;
}

size_t line_editor_input(struct line_editor *ed, const u8 *data, size_t bytes)
{
	size_t left;

	serve(ed);
	ed->input = data;
	ed->input_bytes = bytes;
	ed->busy = true;
	while (ed->input_bytes && !ed->suspended)
		rl_callback_read_char();
	ed->busy = false;
	left = ed->input_bytes;
	ed->input_bytes = 0;
	if (ed->freed)
		destroy(ed);
	else
		fflush(ed->out);
	return bytes - left;
}

const char *line_editor_history(struct line_editor *ed, unsigned nth)
{
	HIST_ENTRY *entry;

	serve(ed);
	entry = (int)nth < history_length ? history_get(history_base + (int)nth) : NULL;
	return entry ? entry->line : NULL;
}
