/* Going to the background, and the file that says who we are. */
#ifndef VMM_DAEMON_H
#define VMM_DAEMON_H

#include "base/error.h"

struct config;

struct daemon {
	int ready_fd;	      /* to the waiting parent; -1: in the foreground */
	int pid_fd;	      /* held locked; -1: none */
	const char *pid_file; /* lent, or pid_path */
	char *pid_path;	      /* whole, once the file is there */
};

/* Fork if asked to, before there are threads.  The parent waits for the child to
 * say that it is ready, and exits with its verdict: it does not return. */
int daemon_begin(struct daemon *d, const struct config *c, struct error *err);
/* All is set up: leave the terminal, let the parent go. */
int daemon_detach(struct daemon *d, struct error *err);
/* Remove the PID file. */
void daemon_end(struct daemon *d);

#endif
