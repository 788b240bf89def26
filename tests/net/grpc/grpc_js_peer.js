// Calls the echo service with @grpc/grpc-js and prints what it saw, a line of JSON for each step.
// Usage: node grpc_js_peer.js <target>, with @grpc/grpc-js to be found from the working directory.
const grpc = require(require.resolve('@grpc/grpc-js', {paths: [process.cwd()]}));
const same = (bytes) => bytes;
const method = (name, requestStream, responseStream) => ({
  path: '/test.Echo/' + name, requestStream, responseStream,
  requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same,
});
const Client = grpc.makeGenericClientConstructor({
  Echo: method('Echo', false, false), Fail: method('Fail', false, false), Keep: method('Keep', false, false),
  Missing: method('Missing', false, false), Join: method('Join', true, false),
  Repeat: method('Repeat', false, true), Bidi: method('Bidi', true, true),
}, 'test.Echo');
const client = new Client(process.argv[2], grpc.credentials.createInsecure());
const say = (step, what) => console.log(JSON.stringify([step, what]));
const unary = (name, message, options = {}) => new Promise((done) =>
  client[name](message, new grpc.Metadata(), options, (error, answer) =>
    done(error ? [error.code, error.details] : answer.toString())));
const stream = (call) => new Promise((done) => {
  const seen = [];
  call.on('data', (message) => seen.push(message.toString()));
  call.on('status', (status) => done([...seen, status.code]));
  call.on('error', () => {});
});

async function main() {
  say('unary', await unary('Echo', Buffer.from('hello')));
  const large = Buffer.alloc(1 << 20, 'x');
  say('large', (await unary('Echo', large)).length);
  say('error', await unary('Fail', Buffer.from('5 schön 100 %')));
  say('missing', await unary('Missing', Buffer.alloc(0)));
  say('deadline', (await unary('Keep', Buffer.alloc(0), {deadline: Date.now() + 100}))[0]);
  say('server stream', await stream(client.Repeat(Buffer.from('3 x'))));
  const bidi = client.Bidi();
  const conversation = stream(bidi);
  for (const word of ['one', 'two']) bidi.write(Buffer.from(word));
  bidi.end();
  say('bidi', await conversation);
  const failing = client.Bidi();
  const failure = stream(failing);
  failing.write(Buffer.from('fail'));
  say('bidi error', await failure);
  say('client stream', await new Promise((done) => {
    const call = client.Join((error, answer) => done(error ? error.code : answer.toString()));
    for (const word of ['one', 'two']) call.write(Buffer.from(word));
    call.end();
  }));
  const many = await Promise.all([...Array(1000).keys()].map((n) => unary('Echo', Buffer.from(String(n)))));
  say('many', many.every((answer, n) => answer === String(n)));
  client.close();
}
main();
