/* The table of command line options, and what its rows call. */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include "vmm/config.h"

#include <stdio.h>

enum option_group {
	GROUP_STANDARD,
	GROUP_BLOCK,
	GROUP_DISPLAY,
	GROUP_NETWORK,
	GROUP_CHARDEV,
	GROUP_BOOT,
	GROUP_DEBUG,
	OPTION_GROUPS
};

struct option;

/* One use of an option.  Of opts-like options `opts` is filled, of others text. */
struct option_use {
	const struct option *option;
	const char *source; /* "-hda x" or "pc.cfg:3" */
	const char *text;   /* NULL: takes no argument */
	const struct opts *opts;
};

typedef int option_fn(struct config *c, const struct option_use *use, struct error *err);

struct option {
	const char *name; /* without dash */
	const char *arg;  /* as -help shows it; NULL: takes none */
	const char *help; /* lines */
	option_fn *apply;
	enum option_group group;
	const char *implied; /* key of a first bare value; "" for none; NULL: plain text */
	const char *keys;    /* that are allowed; NULL: any */
	size_t member;	     /* of struct config, for option_text and option_flag */
};

extern const struct option options[]; /* ends in a row without name */
const struct option *option_find(const char *name);
void options_help(FILE *to);
/* Parse, check and apply; errors do not yet name the option. */
int option_apply(struct config *c, const struct option *o, const char *source, const char *text,
		 struct error *err);
int option_apply_opts(struct config *c, const struct option *o, const char *source,
		      const struct opts *opts, struct error *err);

/* -device help: all drivers, or the properties of one.  device_help.c */
int device_help(FILE *to, const char *driver, struct error *err);

/* option_machine.c */
option_fn option_machine, option_accel, option_enable_kvm, option_cpu, option_smp, option_memory,
	option_name, option_uuid, option_rtc, option_global;
bool config_parse_uuid(const char *text, u8 uuid[16]); /* 8-4-4-4-12 hex digits */
/* option_smbios.c */
option_fn option_smbios;
/* option_drive.c */
void config_share_drives(struct config *c); /* part of config_finish */
option_fn option_drive, option_hard_disk, option_cdrom, option_snapshot;
/* option_blockdev.c */
option_fn option_blockdev;
int config_nodes(struct config *c, struct error *err); /* part of config_finish */
/* option_object.c */
option_fn option_object;
/* Nobody is to read the passphrases of -object in the process's arguments. */
void option_object_hide(char *text);
/* option_char.c */
option_fn option_serial, option_monitor, option_chardev, option_mon, option_debugcon,
	option_nographic, option_echr, option_parallel;
/* option_net.c */
option_fn option_net, option_netdev, option_nic;
/* option_display.c */
option_fn option_display, option_vga, option_vnc;
/* option_run.c */
option_fn option_boot, option_text, option_firmware_dir, option_flag, option_nothing,
	option_no_reboot, option_no_shutdown, option_action, option_trace, option_log_file,
	option_read_config, option_device, option_help, option_version;

#endif
