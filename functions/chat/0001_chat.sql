-- 0001_chat: rooms, who is in them, what is said there, and how much of it each
--         member has not read.
--
-- Why:    whoever opens a room reads its messages by chat_messages_pkey, and the
--         badge on it from chat_members without counting. chat_rooms is what all
--         that happens in a room writes first, so that one event after the other
--         is counted.
-- Locks:  creates only; waits for nobody and nobody waits for it.
-- Growth: chat_messages one row a message, never updated; the others one row a room
--         or a member of it, whatever is said there.
-- Undo:   drop the tables. The ledger still knows the events, so they do not come
--         again.

create table chat_rooms (
    room     text   not null,
    messages bigint not null default 0,

    constraint chat_rooms_pkey primary key (room)
);

comment on table chat_rooms is
    'one row a room in which something has happened; its lock is the room''s';

create table chat_names (
    room    text   not null,
    name    text   not null,
    version bigint not null,

    constraint chat_names_pkey primary key (room)
);

comment on table chat_names is
    'what a room is called; apart from chat_rooms, so that a name waits for nobody';
comment on column chat_names.version is
    'one more than that of the name it replaces; of two, the greater one stays';

create table chat_members (
    room       text        not null,
    member     text        not null,
    changed_at timestamptz not null,
    unread     integer     not null default 0,
    deleted    boolean     not null default false,

    constraint chat_members_pkey      primary key (room, member),
    constraint chat_members_room_fkey foreign key (room) references chat_rooms (room)
);

comment on column chat_members.changed_at is
    'time of the event by which they joined or left; the later one counts';
comment on column chat_members.unread is
    'messages of others behind the read marker; 1000 is 1000 or more';
comment on column chat_members.deleted is
    'they have left';

create table chat_reads (
    room    text not null,
    member  text not null,
    read_to uuid not null,

    constraint chat_reads_pkey      primary key (room, member),
    constraint chat_reads_room_fkey foreign key (room) references chat_rooms (room)
);

comment on table chat_reads is
    'read markers, a maximum; also of who is no member yet, or no longer';
comment on column chat_reads.read_to is
    'the last message that was read, or the moment they joined as a UUIDv7';

create table chat_messages (
    room      text        not null,
    message   uuid        not null,
    author    text        not null,
    text      text        not null,
    posted_at timestamptz not null,

    constraint chat_messages_pkey      primary key (room, message),
    constraint chat_messages_room_fkey foreign key (room) references chat_rooms (room)
);

comment on column chat_messages.message is
    'UUIDv7 with the time of posted_at, so that the key is in the order of the history';
