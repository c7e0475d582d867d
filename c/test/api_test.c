/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * api_test.c: redisapi.h beside a real redismodule.h: that this compiles is
 * the test. test/api.sh makes ours.h, our header with its functions called
 * Ours_…, its constants OURS_… and the structures that it defines Ours…, so that
 * both fit into one file. Opaque and callback types keep their names: C lets a
 * type be declared again only when it is the same.
 */
#include "redismodule.h"

#ifdef VALKEYMODULE_APIVER_1
/* Valkey's redismodule.h leaves these out. */
#define RedisModuleCommandInfoVersion ValkeyModuleCommandInfoVersion
#endif

#include "ours.h"

/* Optional functions that this header has not are held against themselves. */
#include "absent.h"

#define SAME_FUNCTION(ret, name, params)                                       \
	_Static_assert(__builtin_types_compatible_p(                           \
			       ret(*) params,                                  \
			       __typeof__(RedisModule_##name)),                \
		       "RedisModule_" #name " has other parameters");
KEA_API_REQUIRED(SAME_FUNCTION)
KEA_API_OPTIONAL(SAME_FUNCTION)

#define SAME_PLACE(type, field)                                                \
	_Static_assert(offsetof(RedisModule##type, field) ==                   \
				       offsetof(Ours##type, field) &&          \
			       sizeof(((RedisModule##type *)0)->field) ==      \
				       sizeof(((Ours##type *)0)->field),       \
		       #type "." #field " is elsewhere");
#define SAME_SIZE(type)                                                        \
	_Static_assert(sizeof(RedisModule##type) == sizeof(Ours##type),        \
		       #type " has another size");

SAME_SIZE(Event)
SAME_PLACE(Event, id)
SAME_PLACE(Event, dataver)

SAME_SIZE(CommandInfoVersion)
SAME_PLACE(CommandInfoVersion, version)
SAME_PLACE(CommandInfoVersion, sizeof_historyentry)
SAME_PLACE(CommandInfoVersion, sizeof_keyspec)
SAME_PLACE(CommandInfoVersion, sizeof_arg)

SAME_SIZE(CommandInfo)
SAME_PLACE(CommandInfo, version)
SAME_PLACE(CommandInfo, summary)
SAME_PLACE(CommandInfo, complexity)
SAME_PLACE(CommandInfo, since)
SAME_PLACE(CommandInfo, history)
SAME_PLACE(CommandInfo, tips)
SAME_PLACE(CommandInfo, arity)
SAME_PLACE(CommandInfo, key_specs)
SAME_PLACE(CommandInfo, args)

SAME_PLACE(CommandArg, name)
SAME_PLACE(CommandArg, type)
SAME_PLACE(CommandArg, key_spec_index)
SAME_PLACE(CommandArg, token)
SAME_PLACE(CommandArg, summary)
SAME_PLACE(CommandArg, since)
SAME_PLACE(CommandArg, flags)
SAME_PLACE(CommandArg, deprecated_since)
SAME_PLACE(CommandArg, subargs)
#ifdef HAVE_DISPLAY_TEXT
SAME_SIZE(CommandArg)
SAME_PLACE(CommandArg, display_text)
#else
/* 7.0: the server honours the size that it is told, so ours may be longer. */
_Static_assert(sizeof(RedisModuleCommandArg) ==
		       offsetof(OursCommandArg, display_text),
	       "CommandArg has another size");
#endif

/* What the module passes in RedisModuleCommandInfoVersion. */
_Static_assert(sizeof(RedisModuleCommandHistoryEntry) == 16, "history entry");
_Static_assert(sizeof(RedisModuleCommandKeySpec) == 56, "key spec");

/* Made by test/api.sh: one assertion for each of our constants. */
#include "constants.h"
