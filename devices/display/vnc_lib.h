/* libvncserver, loaded when somebody wants VNC: with what it needs itself it would add
 * 10 ms to every start of the program. */
#ifndef DEVICES_DISPLAY_VNC_LIB_H
#define DEVICES_DISPLAY_VNC_LIB_H

#include "base/error.h"

#include <rfb/rfb.h>
#include <rfb/rfbregion.h>

#define VNC_LIB_FUNCTIONS(F)                                                                       \
	F(rfbCloseClient)                                                                          \
	F(rfbDecrClientRef)                                                                        \
	F(rfbEncryptBytes)                                                                         \
	F(rfbGetScreen)                                                                            \
	F(rfbIncrClientRef)                                                                        \
	F(rfbInitServerWithPthreadsAndZRLE)                                                        \
	F(rfbLog)                                                                                  \
	F(rfbErr)                                                                                  \
	F(rfbMarkRegionAsModified)                                                                 \
	F(rfbNewClient)                                                                            \
	F(rfbReadExact)                                                                            \
	F(rfbRegisterProtocolExtension)                                                            \
	F(rfbScreenCleanup)                                                                        \
	F(rfbStartOnHoldClient)                                                                    \
	F(rfbUnregisterProtocolExtension)                                                          \
	F(rfbWriteExact)                                                                           \
	F(sraRgnAnd)                                                                               \
	F(sraRgnCreate)                                                                            \
	F(sraRgnCreateRect)                                                                        \
	F(sraRgnDestroy)                                                                           \
	F(sraRgnEmpty)                                                                             \
	F(sraRgnMakeEmpty)                                                                         \
	F(sraRgnOr)

struct vnc_lib {
#define DECLARE(name) __typeof__(&(name)) name;
	VNC_LIB_FUNCTIONS(DECLARE)
#undef DECLARE
};

int vnc_lib_load(struct vnc_lib *lib, struct error *err);

#endif
