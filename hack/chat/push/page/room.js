// The state of a room in the browser, computed from events in any order, like the
// function's tables.

const push = 'com.example.chat.push.';

export class Room {
  constructor(id) {
    this.id = id;
    this.name = id;
    this.version = 0;
    this.messages = new Map(); // by id
    this.members = new Map(); // name to {in, at}
    this.markers = new Map(); // name to the last message read
  }

  // take applies a pushed event.
  take(event) {
    const d = event.data;
    switch (event.type) {
      case push + 'message':
        this.messages.set(d.message, d);
        break;
      case push + 'name':
        // Renamed in both regions at once: the greater name, as the database has it.
        if (d.version > this.version || (d.version === this.version && d.name > this.name)) {
          this.name = d.name;
          this.version = d.version;
        }
        break;
      case push + 'member': {
        const at = Date.parse(d.at);
        const known = this.members.get(d.member);
        if (!known || at > known.at) this.members.set(d.member, { in: d.in, at });
        if (d.in) this.mark(d.member, uuidAt(at, new Uint8Array(10)));
        break;
      }
      case push + 'read':
        this.mark(d.member, d.message);
        break;
    }
  }

  // mark advances a read marker, never moves it back.
  mark(member, message) {
    if (message > (this.markers.get(member) || '')) this.markers.set(member, message);
  }

  // history returns the messages, oldest first.
  history() {
    return [...this.messages.values()].sort((a, b) => (a.message < b.message ? -1 : 1));
  }

  // present returns the members in the room.
  present() {
    return [...this.members].filter(([, m]) => m.in).map(([name]) => name).sort();
  }

  isIn(member) {
    const known = this.members.get(member);
    return Boolean(known && known.in);
  }

  // unread returns the number of messages of others after a member's marker.
  unread(member) {
    if (!this.isIn(member)) return 0;
    const marker = this.markers.get(member) || '';
    return [...this.messages.values()].filter((m) => m.message > marker && m.author !== member).length;
  }

  // last returns the id of the last message, if there is one.
  last() {
    return [...this.messages.keys()].reduce((a, b) => (b > a ? b : a), '');
  }
}

// uuid returns a UUIDv7: the id of an event, and its time, however often it is sent.
export function uuid() {
  return uuidAt(Date.now(), crypto.getRandomValues(new Uint8Array(10)));
}

function uuidAt(millis, random) {
  const b = new Uint8Array(16);
  for (let i = 5, rest = millis; i >= 0; i--, rest = Math.floor(rest / 256)) b[i] = rest % 256;
  b.set(random, 6);
  b[6] = (b[6] & 0x0f) | 0x70;
  b[8] = (b[8] & 0x3f) | 0x80;
  const hex = [...b].map((x) => x.toString(16).padStart(2, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
