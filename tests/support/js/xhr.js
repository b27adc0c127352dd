// XMLHttpRequest over fetch, as far as autobahn-js uses it: Node has none, and its long-poll transport needs one.
"use strict";

class Request {
  constructor() {
    Object.assign(this, { readyState: 0, status: 0, statusText: "", responseText: "", timeout: 0, headers: {} });
  }

  open(method, url) {
    Object.assign(this, { method, url, readyState: 1 });
  }

  setRequestHeader(name, value) {
    this.headers[name] = value;
  }

  send(body) {
    const signal = this.timeout ? AbortSignal.timeout(this.timeout) : undefined;
    fetch(this.url, { method: this.method, headers: this.headers, body, signal }).then(
      async (response) => {
        this.responseText = await response.text();
        this.status = response.status;
        this.statusText = response.statusText;
        this.finish();
      },
    ).catch((error) => {
      this.statusText = String(error.cause || error);
      this.finish();
    });
  }

  finish() {
    this.readyState = 4;
    this.onreadystatechange();
  }
}

globalThis.XMLHttpRequest = Request;
