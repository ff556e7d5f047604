/* What is said of the SMBIOS tables from outside. */
#ifndef FIRMWARE_SMBIOS_H
#define FIRMWARE_SMBIOS_H

#define SMBIOS_TYPES 42 /* of structures that somebody may say something of */

/* Kinds of onboard devices, DSP0134 7.42.2, from 1 on; ends in NULL. */
extern const char *const smbios_kinds[];

#endif
