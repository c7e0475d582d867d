/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * redisapi.h: the part of Redis's module API that this module uses, declared
 * from the API's documented facts (redis.io/docs/.../modules-api-ref). No
 * package ships redismodule.h, and the module wants one binary for Redis 7.0
 * to 8.x and Valkey 7.2 and newer; all of them hand out the same functions by
 * name.
 *
 * Every function is a pointer named like the API's own, filled in by
 * kea_api_bind(). Those of KEA_API_OPTIONAL may be NULL: ask for the function,
 * never for the server's version.
 */
#ifndef KEA_REDISAPI_H
#define KEA_REDISAPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct RedisModuleCtx RedisModuleCtx;
typedef struct RedisModuleString RedisModuleString;
typedef struct RedisModuleKey RedisModuleKey;
typedef struct RedisModuleServerInfoData RedisModuleServerInfoData;
typedef struct RedisModuleBlockedClient RedisModuleBlockedClient;
typedef struct RedisModuleCommand RedisModuleCommand;
typedef struct RedisModuleInfoCtx RedisModuleInfoCtx;
typedef struct RedisModuleCallReply RedisModuleCallReply;
typedef struct RedisModuleScanCursor RedisModuleScanCursor;

#define REDISMODULE_OK 0
#define REDISMODULE_ERR 1
#define REDISMODULE_APIVER_1 1

#define REDISMODULE_READ 1
#define REDISMODULE_WRITE 2
#define REDISMODULE_OPEN_KEY_NOTOUCH (1 << 16)
/* Also without notification, statistics and expiry: 7.2 and newer; 7.0 ignores
 * what it does not know. */
#define KEA_OPEN_KEY_UNSEEN (REDISMODULE_OPEN_KEY_NOTOUCH | 7 << 17)
/* 7.2 and newer; 7.0 ignores them. */
#define REDISMODULE_OPEN_KEY_NONOTIFY (1 << 17)
#define REDISMODULE_OPEN_KEY_NOSTATS (1 << 18)
#define REDISMODULE_OPEN_KEY_NOEXPIRE (1 << 19)

#define REDISMODULE_EVENTLOOP_READABLE 1

#define REDISMODULE_POSTPONED_LEN (-1)

#define REDISMODULE_KEYTYPE_EMPTY 0
#define REDISMODULE_KEYTYPE_LIST 2

#define REDISMODULE_REPLY_STRING 0
#define REDISMODULE_REPLY_INTEGER 2

#define REDISMODULE_STREAM_ITERATOR_REVERSE (1 << 1)

#define REDISMODULE_LIST_HEAD 0
#define REDISMODULE_LIST_TAIL 1

#define REDISMODULE_CTX_FLAGS_LUA (1 << 0)
#define REDISMODULE_CTX_FLAGS_MULTI (1 << 1)
#define REDISMODULE_CTX_FLAGS_MASTER (1 << 2)
#define REDISMODULE_CTX_FLAGS_SLAVE (1 << 3)
#define REDISMODULE_CTX_FLAGS_CLUSTER (1 << 5)
#define REDISMODULE_CTX_FLAGS_REPLICATED (1 << 12)
#define REDISMODULE_CTX_FLAGS_LOADING (1 << 13)
#define REDISMODULE_CTX_FLAGS_REPLICA_IS_STALE (1 << 14)
#define REDISMODULE_CTX_FLAGS_DENY_BLOCKING (1 << 21)
#define REDISMODULE_CTX_FLAGS_ASYNC_LOADING (1 << 23)
/* Valkey's alone; the bit has another meaning on Redis. */
#define VALKEYMODULE_CTX_FLAGS_SLOT_IMPORT_CLIENT (1 << 25)

#define REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED (1 << 1)
#define REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD (1 << 2)
/* Valkey's alone (9.0 and newer). */
#define VALKEYMODULE_OPTIONS_HANDLE_ATOMIC_SLOT_MIGRATION (1 << 5)

#define REDISMODULE_CONFIG_DEFAULT 0
#define REDISMODULE_CONFIG_SENSITIVE (1 << 1)

/* The id of a stream's entry. */
typedef struct RedisModuleStreamID {
	uint64_t ms;
	uint64_t seq;
} RedisModuleStreamID;

/* What comes with the server event Key. */
typedef struct RedisModuleKeyInfo {
	uint64_t version;
	RedisModuleKey *key;
} RedisModuleKeyInfo;

/* Server events: the argument of SubscribeToServerEvent, passed by value. */
typedef struct RedisModuleEvent {
	uint64_t id;
	uint64_t dataver;
} RedisModuleEvent;

#define REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED 0
#define REDISMODULE_EVENT_FLUSHDB 2
#define REDISMODULE_EVENT_LOADING 3
#define REDISMODULE_EVENT_SHUTDOWN 5
#define REDISMODULE_EVENT_REPLICA_CHANGE 6
#define REDISMODULE_EVENT_CRON_LOOP 8
#define REDISMODULE_EVENT_SWAPDB 11
#define REDISMODULE_EVENT_EVENTLOOP 15
#define REDISMODULE_EVENT_KEY 17 /* 7.2 and newer */

#define REDISMODULE_SUBEVENT_KEY_DELETED 0
#define REDISMODULE_SUBEVENT_KEY_EXPIRED 1
#define REDISMODULE_SUBEVENT_KEY_EVICTED 2

#define REDISMODULE_SUBEVENT_REPLICA_CHANGE_ONLINE 0
/* What FLUSHDB and SWAPDB come with, when they have happened. */
typedef struct RedisModuleFlushInfo {
	uint64_t version;
	int32_t sync;
	int32_t dbnum; /* -1: all */
} RedisModuleFlushInfo;

typedef struct RedisModuleSwapDbInfo {
	uint64_t version;
	int32_t dbnum_first;
	int32_t dbnum_second;
} RedisModuleSwapDbInfo;

#define REDISMODULE_SUBEVENT_FLUSHDB_END 1

#define REDISMODULE_SUBEVENT_EVENTLOOP_BEFORE_SLEEP 0
#define REDISMODULE_SUBEVENT_EVENTLOOP_AFTER_SLEEP 1

/* Classes of keyspace events; the bits are the server's own. */
#define REDISMODULE_NOTIFY_GENERIC (1 << 2)
#define REDISMODULE_NOTIFY_STRING (1 << 3)
#define REDISMODULE_NOTIFY_LIST (1 << 4)
#define REDISMODULE_NOTIFY_SET (1 << 5)
#define REDISMODULE_NOTIFY_HASH (1 << 6)
#define REDISMODULE_NOTIFY_ZSET (1 << 7)
#define REDISMODULE_NOTIFY_EXPIRED (1 << 8)
#define REDISMODULE_NOTIFY_EVICTED (1 << 9)
#define REDISMODULE_NOTIFY_STREAM (1 << 10)
#define REDISMODULE_NOTIFY_KEY_MISS (1 << 11)
#define REDISMODULE_NOTIFY_LOADED (1 << 12) /* for modules only */
#define REDISMODULE_NOTIFY_MODULE (1 << 13)
#define REDISMODULE_NOTIFY_NEW (1 << 14)
#define REDISMODULE_NOTIFY_OVERWRITTEN (1 << 15) /* newer than 7.0 */
#define REDISMODULE_NOTIFY_TYPE_CHANGED (1 << 16)

typedef int (*RedisModuleCmdFunc)(RedisModuleCtx *, RedisModuleString **, int);
typedef int (*RedisModuleNotificationFunc)(RedisModuleCtx *, int type,
					   const char *event,
					   RedisModuleString *key);
typedef void (*RedisModuleEventCallback)(RedisModuleCtx *, RedisModuleEvent,
					 uint64_t sub, void *data);
typedef void (*RedisModuleInfoFunc)(RedisModuleInfoCtx *, int for_crash_report);
typedef RedisModuleString *(*RedisModuleConfigGetStringFunc)(const char *,
							     void *);
typedef long long (*RedisModuleConfigGetNumericFunc)(const char *, void *);
typedef int (*RedisModuleConfigGetBoolFunc)(const char *, void *);
typedef int (*RedisModuleConfigSetStringFunc)(const char *, RedisModuleString *,
					      void *, RedisModuleString **);
typedef int (*RedisModuleConfigSetNumericFunc)(const char *, long long, void *,
					       RedisModuleString **);
typedef int (*RedisModuleConfigSetBoolFunc)(const char *, int, void *,
					    RedisModuleString **);
/* sender and target are node ids, 40 bytes; the sender's has no NUL. */
typedef void (*RedisModuleClusterMessageReceiver)(RedisModuleCtx *,
						  const char *sender,
						  uint8_t type,
						  const unsigned char *payload,
						  uint32_t len);
typedef void (*RedisModuleEventLoopFunc)(int fd, void *user, int mask);
typedef void (*RedisModuleScanKeyCB)(RedisModuleKey *, RedisModuleString *field,
				     RedisModuleString *value, void *priv);
typedef void (*RedisModuleScanCB)(RedisModuleCtx *, RedisModuleString *name,
				  RedisModuleKey *, void *priv);
typedef int (*RedisModuleConfigApplyFunc)(RedisModuleCtx *, void *,
					  RedisModuleString **);

/*
 * Command documentation. The layout is that of 7.2 (72 bytes an argument,
 * with display_text); 7.0 honours the size given in the version and ignores
 * the tail. The 64-byte layout of 7.0's header makes newer servers read past
 * the element.
 */
typedef enum { REDISMODULE_ARG_TYPE_STRING = 0,
	       REDISMODULE_ARG_TYPE_INTEGER = 1 } RedisModuleCommandArgType;
#define REDISMODULE_CMD_ARG_OPTIONAL (1 << 0)
#define REDISMODULE_CMD_ARG_MULTIPLE (1 << 1)

typedef struct RedisModuleCommandArg {
	const char *name;
	RedisModuleCommandArgType type;
	int key_spec_index;
	const char *token;
	const char *summary;
	const char *since;
	int flags;
	const char *deprecated_since;
	struct RedisModuleCommandArg *subargs;
	const char *display_text;
} RedisModuleCommandArg;

typedef struct RedisModuleCommandInfoVersion {
	int version;
	size_t sizeof_historyentry;
	size_t sizeof_keyspec;
	size_t sizeof_arg;
} RedisModuleCommandInfoVersion;

typedef struct RedisModuleCommandInfo {
	const RedisModuleCommandInfoVersion *version;
	const char *summary;
	const char *complexity;
	const char *since;
	const void *history;
	const char *tips;
	int arity;
	const void *key_specs;
	RedisModuleCommandArg *args;
} RedisModuleCommandInfo;

_Static_assert(sizeof(RedisModuleCommandArg) == 72, "server's layout");
_Static_assert(sizeof(RedisModuleCommandInfo) == 72, "server's layout");

/* X(return type, name, parameters): all of these exist in 7.0.0. */
#define KEA_API_REQUIRED(X)                                                    \
	X(void *, Alloc, (size_t))                                             \
	X(void *, Calloc, (size_t, size_t))                                    \
	X(void, Free, (void *))                                                \
	X(RedisModuleString *, CreateString,                                   \
	  (RedisModuleCtx *, const char *, size_t))                            \
	X(void, FreeString, (RedisModuleCtx *, RedisModuleString *))           \
	X(void, RetainString, (RedisModuleCtx *, RedisModuleString *))         \
	X(const char *, StringPtrLen, (const RedisModuleString *, size_t *))   \
	X(int, IsModuleNameBusy, (const char *))                               \
	X(void, SetModuleAttribs, (RedisModuleCtx *, const char *, int, int))  \
	X(void, SetModuleOptions, (RedisModuleCtx *, int))                     \
	X(int, WrongArity, (RedisModuleCtx *))                                 \
	X(int, ReplyWithArray, (RedisModuleCtx *, long))                       \
	X(void, ReplySetArrayLength, (RedisModuleCtx *, long))                 \
	X(int, ReplyWithLongLong, (RedisModuleCtx *, long long))               \
	X(int, ReplyWithStringBuffer, (RedisModuleCtx *, const char *, size_t)) \
	X(int, StringToLongLong, (const RedisModuleString *, long long *))     \
	X(int, ReplyWithError, (RedisModuleCtx *, const char *))               \
	X(int, ReplyWithSimpleString, (RedisModuleCtx *, const char *))        \
	X(void, Log, (RedisModuleCtx *, const char *, const char *, ...))      \
	X(long long, Milliseconds, (void))                                     \
	X(int, CreateCommand,                                                  \
	  (RedisModuleCtx *, const char *, RedisModuleCmdFunc, const char *,   \
	   int, int, int))                                                     \
	X(RedisModuleCommand *, GetCommand, (RedisModuleCtx *, const char *))  \
	X(int, SetCommandInfo,                                                 \
	  (RedisModuleCommand *, const RedisModuleCommandInfo *))              \
	X(int, RedactClientCommandArgument, (RedisModuleCtx *, int))           \
	X(int, GetSelectedDb, (RedisModuleCtx *))                              \
	X(int, SelectDb, (RedisModuleCtx *, int))                              \
	X(RedisModuleKey *, OpenKey,                                           \
	  (RedisModuleCtx *, RedisModuleString *, int))                        \
	X(void, CloseKey, (RedisModuleKey *))                                  \
	X(long long, GetAbsExpire, (RedisModuleKey *))                         \
	X(RedisModuleString *, HoldString,                                     \
	  (RedisModuleCtx *, RedisModuleString *))                             \
	X(uint64_t, MonotonicMicroseconds, (void))                             \
	X(int, EventLoopAdd,                                                   \
	  (int fd, int mask, RedisModuleEventLoopFunc, void *))                \
	X(int, EventLoopDel, (int fd, int mask))                               \
	X(int, SignalModifiedKey, (RedisModuleCtx *, RedisModuleString *))     \
	X(int, KeyType, (RedisModuleKey *))                                    \
	X(size_t, ValueLength, (RedisModuleKey *))                             \
	X(int, ListPush, (RedisModuleKey *, int, RedisModuleString *))         \
	X(RedisModuleString *, ListPop, (RedisModuleKey *, int))               \
	X(RedisModuleString *, ListGet, (RedisModuleKey *, long))              \
	X(int, ListDelete, (RedisModuleKey *, long))                           \
	X(int, Replicate,                                                      \
	  (RedisModuleCtx *, const char *, const char *, ...))                 \
	X(RedisModuleServerInfoData *, GetServerInfo,                          \
	  (RedisModuleCtx *, const char *))                                    \
	X(void, FreeServerInfo,                                                \
	  (RedisModuleCtx *, RedisModuleServerInfoData *))                     \
	X(const char *, ServerInfoGetFieldC,                                   \
	  (RedisModuleServerInfoData *, const char *))                         \
	X(int, GetContextFlags, (RedisModuleCtx *))                            \
	X(int, AvoidReplicaTraffic, (void))                                    \
	X(int, SubscribeToKeyspaceEvents,                                      \
	  (RedisModuleCtx *, int, RedisModuleNotificationFunc))                \
	X(int, GetKeyspaceNotificationFlagsAll, (void))                        \
	X(int, SubscribeToServerEvent,                                         \
	  (RedisModuleCtx *, RedisModuleEvent, RedisModuleEventCallback))      \
	X(int, EventLoopAddOneShot, (void (*)(void *), void *))                \
	X(RedisModuleCtx *, GetDetachedThreadSafeContext, (RedisModuleCtx *))  \
	X(void, FreeThreadSafeContext, (RedisModuleCtx *))                     \
	X(RedisModuleBlockedClient *, BlockClient,                             \
	  (RedisModuleCtx *, RedisModuleCmdFunc, RedisModuleCmdFunc,           \
	   void (*)(RedisModuleCtx *, void *), long long))                     \
	X(int, UnblockClient, (RedisModuleBlockedClient *, void *))            \
	X(void *, GetBlockedClientPrivateData, (RedisModuleCtx *))             \
	X(int, RegisterInfoFunc, (RedisModuleCtx *, RedisModuleInfoFunc))      \
	X(int, InfoAddSection, (RedisModuleInfoCtx *, const char *))           \
	X(int, InfoAddFieldLongLong,                                           \
	  (RedisModuleInfoCtx *, const char *, long long))                     \
	X(int, InfoAddFieldULongLong,                                          \
	  (RedisModuleInfoCtx *, const char *, unsigned long long))            \
	X(int, InfoAddFieldCString,                                            \
	  (RedisModuleInfoCtx *, const char *, const char *))                  \
	X(int, RegisterStringConfig,                                           \
	  (RedisModuleCtx *, const char *, const char *, unsigned,             \
	   RedisModuleConfigGetStringFunc, RedisModuleConfigSetStringFunc,     \
	   RedisModuleConfigApplyFunc, void *))                                \
	X(int, RegisterNumericConfig,                                          \
	  (RedisModuleCtx *, const char *, long long, unsigned, long long,     \
	   long long, RedisModuleConfigGetNumericFunc,                         \
	   RedisModuleConfigSetNumericFunc, RedisModuleConfigApplyFunc,        \
	   void *))                                                            \
	X(int, RegisterBoolConfig,                                             \
	  (RedisModuleCtx *, const char *, int, unsigned,                      \
	   RedisModuleConfigGetBoolFunc, RedisModuleConfigSetBoolFunc,         \
	   RedisModuleConfigApplyFunc, void *))                                \
	X(int, LoadConfigs, (RedisModuleCtx *))                                \
	X(RedisModuleCallReply *, Call,                                        \
	  (RedisModuleCtx *, const char *, const char *, ...))                 \
	X(int, CallReplyType, (RedisModuleCallReply *))                        \
	X(long long, CallReplyInteger, (RedisModuleCallReply *))               \
	X(const char *, CallReplyStringPtr,                                    \
	  (RedisModuleCallReply *, size_t *))                                  \
	X(void, FreeCallReply, (RedisModuleCallReply *))                       \
	X(size_t, CallReplyLength, (RedisModuleCallReply *))                   \
	X(RedisModuleCallReply *, CallReplyArrayElement,                       \
	  (RedisModuleCallReply *, size_t))                                    \
	X(unsigned long long, DbSize, (RedisModuleCtx *))                      \
	X(int, IsSubEventSupported, (RedisModuleEvent, int64_t))               \
	X(const RedisModuleString *, GetKeyNameFromModuleKey,                  \
	  (RedisModuleKey *))                                                  \
	X(char *, StringDMA, (RedisModuleKey *, size_t *, int))                \
	X(int, ScanKey,                                                        \
	  (RedisModuleKey *, RedisModuleScanCursor *, RedisModuleScanKeyCB,    \
	   void *))                                                            \
	X(int, ZsetFirstInScoreRange,                                          \
	  (RedisModuleKey *, double, double, int, int))                        \
	X(RedisModuleString *, ZsetRangeCurrentElement,                        \
	  (RedisModuleKey *, double *))                                        \
	X(int, ZsetRangeNext, (RedisModuleKey *))                              \
	X(int, ZsetRangeEndReached, (RedisModuleKey *))                        \
	X(void, ZsetRangeStop, (RedisModuleKey *))                             \
	X(int, StreamIteratorStart,                                            \
	  (RedisModuleKey *, int, RedisModuleStreamID *,                       \
	   RedisModuleStreamID *))                                             \
	X(int, StreamIteratorNextID,                                           \
	  (RedisModuleKey *, RedisModuleStreamID *, long *))                   \
	X(int, StreamIteratorNextField,                                        \
	  (RedisModuleKey *, RedisModuleString **, RedisModuleString **))      \
	X(int, StreamIteratorStop, (RedisModuleKey *))                         \
	X(RedisModuleScanCursor *, ScanCursorCreate, (void))                   \
	X(void, ScanCursorDestroy, (RedisModuleScanCursor *))                  \
	X(int, Scan,                                                           \
	  (RedisModuleCtx *, RedisModuleScanCursor *, RedisModuleScanCB,       \
	   void *))                                                            \
	X(const char *, GetMyClusterID, (void))                                \
	X(char **, GetClusterNodesList, (RedisModuleCtx *, size_t *))          \
	X(void, FreeClusterNodesList, (char **))                               \
	X(void, RegisterClusterMessageReceiver,                                \
	  (RedisModuleCtx *, uint8_t, RedisModuleClusterMessageReceiver))      \
	X(int, SendClusterMessage,                                             \
	  (RedisModuleCtx *, const char *, uint8_t, const char *, uint32_t))

/* Newer than 7.0. */
#define KEA_API_OPTIONAL(X)                                                    \
	X(int, AddACLCategory, (RedisModuleCtx *, const char *))               \
	X(int, SetCommandACLCategories, (RedisModuleCommand *, const char *))  \
	X(int, AddPostNotificationJob,                                         \
	  (RedisModuleCtx *, void (*)(RedisModuleCtx *, void *), void *,       \
	   void (*)(void *)))                                                  \
	X(int, ClusterCanAccessKeysInSlot, (int))                              \
	X(int, GetDbIdFromModuleKey, (RedisModuleKey *))

#define KEA_API_DECLARE(ret, name, params)                                     \
	extern ret(*RedisModule_##name) params;
KEA_API_REQUIRED(KEA_API_DECLARE)
KEA_API_OPTIONAL(KEA_API_DECLARE)
#undef KEA_API_DECLARE

/* Whether this server is a Valkey; what it is of, its functions tell. */
extern bool kea_api_is_valkey;

/* The module options that this server knows, on Valkey alone; else NULL. */
extern int (*kea_api_valkey_options)(void);

/*
 * kea_api_bind fills in the pointers from the context of OnLoad. It returns
 * NULL, or the name of a required function that this server lacks.
 */
const char *kea_api_bind(RedisModuleCtx *ctx);

#endif /* KEA_REDISAPI_H */
