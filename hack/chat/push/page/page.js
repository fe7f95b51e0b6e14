// The page: one side for each cluster, each with a websocket to its own server.
// ?side=west shows one side only, ?room=lunch another room.

import { Room, uuid } from './room.js';

const query = new URLSearchParams(location.search);
const type = (name) => 'com.example.chat.' + name;
const names = ['Ann', 'Bob', 'Cid'];

class Side {
  constructor(side, index) {
    this.url = side.url.replace(/^http/, 'ws') + '/ws';
    this.roomID = query.get('room') || 'ops';
    this.member = sessionStorage.getItem('member ' + side.name) || names[index % names.length];
    this.storage = 'member ' + side.name;
    this.unsent = new Map(); // requests without an answer, by id
    this.root = document.getElementById('side').content.firstElementChild.cloneNode(true);
    document.getElementById('sides').append(this.root);
    this.part('cluster').textContent = side.name;
    this.part('member').value = this.member;
    this.part('post').onsubmit = (e) => {
      e.preventDefault();
      const text = this.part('text').value.trim();
      if (!text) return;
      this.part('text').value = '';
      this.send('message.posted', { text });
    };
    this.part('member').onchange = (e) => {
      this.member = e.target.value.trim() || this.member;
      sessionStorage.setItem(this.storage, this.member);
      this.connect();
    };
    this.part('rename').onclick = () => {
      const name = prompt('Name of the room', this.room.name);
      if (name) this.send('room.named', { name, version: this.room.version + 1 });
    };
    this.part('membership').onclick = () => this.send(this.room.isIn(this.member) ? 'member.left' : 'member.joined', {});
    // A user who works in a side reads its messages.
    this.root.onpointerenter = this.root.onfocusin = () => this.read();
    this.connect();
  }

  part(name) { return this.root.querySelector('.' + name); }

  connect() {
    clearTimeout(this.again);
    if (this.socket) this.socket.onclose = this.socket.onmessage = null;
    if (this.socket) this.socket.close();
    this.room = new Room(this.roomID);
    const socket = new WebSocket(this.url + '?' + new URLSearchParams({ room: this.roomID, member: this.member }));
    this.socket = socket;
    socket.onopen = () => {
      this.connection('connected');
      // The same ids as before: an event that is stored already changes nothing.
      for (const request of this.unsent.values()) socket.send(JSON.stringify(request));
    };
    socket.onmessage = (e) => this.take(JSON.parse(e.data));
    socket.onclose = () => {
      this.connection('away, connecting again');
      this.again = setTimeout(() => this.connect(), 1000);
    };
    this.draw();
  }

  send(name, data) {
    const request = { id: uuid(), type: type(name), data };
    this.unsent.set(request.id, request);
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(request));
    this.draw();
  }

  take(message) {
    if (message.specversion) {
      this.room.take(message);
      if (message.causationid) this.unsent.delete(message.causationid);
    } else if (message.stored && this.unsent.has(message.stored)) {
      // A message is shown as pending until the server pushes it.
      if (this.unsent.get(message.stored).type === type('message.posted')) this.part('problem').textContent = '';
      else this.unsent.delete(message.stored);
    } else if (message.failed) {
      this.unsent.delete(message.failed);
      this.part('problem').textContent = 'Not sent: ' + message.reason;
    }
    this.draw();
  }

  read() {
    const last = this.room.last();
    if (this.room.unread(this.member) > 0 && this.marked !== last) {
      this.marked = last;
      this.send('message.read', { message: last });
    }
  }

  connection(text) { this.part('connection').textContent = text; }

  // draw draws once for all events that arrive together.
  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      const room = this.room;
      this.part('rename').textContent = room.name;
      this.part('unread').textContent = room.unread(this.member) || '';
      this.part('members').textContent = room.present().join(', ') || 'Nobody is here';
      this.part('membership').textContent = room.isIn(this.member) ? 'Leave' : 'Join';
      const list = this.part('messages');
      const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
      const pending = [...this.unsent.values()].filter((r) => r.type === type('message.posted'));
      list.replaceChildren(
        ...room.history().map((m) => line(m.author, m.text, new Date(m.at).toLocaleTimeString())),
        ...pending.map((r) => line(this.member, r.data.text, 'sending', 'pending')),
      );
      if (atEnd) list.scrollTop = list.scrollHeight;
      if (this.root.matches(':hover') || this.root.contains(document.activeElement)) this.read();
    });
  }
}

function line(author, text, note, className) {
  const item = document.createElement('li');
  const parts = [['b', author], ['span', text], ['small', note]].map(([tag, content]) => {
    const part = document.createElement(tag);
    part.textContent = content; // never as HTML
    return part;
  });
  item.append(...parts);
  if (className) item.className = className;
  return item;
}

const sides = await (await fetch('sides')).json();
sides.filter((s) => !query.has('side') || s.name === query.get('side')).forEach((s, i) => new Side(s, i));
