/* plugin.h - what plugins.c calls in each plug-in. */
#ifndef ETSLOCK_TESTS_PLUGIN_H
#define ETSLOCK_TESTS_PLUGIN_H

#include <etslock.h>

__attribute__((visibility("default"))) int plugin_check(const char *name);

#endif
