// Checks custom resources, a JSON list on standard input, against the schemas of their operators; prints the problems.
import { HTTPRoute } from '@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute';
import { ScaledObject } from '@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject';
import { PrometheusRule } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule';
import { ServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor';

const models = { HTTPRoute, PrometheusRule, ScaledObject, ServiceMonitor };

// A validator looks at all the fields that its schema has. A field that it never looked at is unknown to the schema.
function watched(value, path, unseen) {
  if (typeof value !== 'object' || value === null) return value;
  const children = {};
  for (const [key, child] of Object.entries(value)) {
    const place = `${path}.${key}`;
    unseen.add(place);
    children[key] = watched(child, place, unseen);
  }
  return new Proxy(Array.isArray(value) ? Object.values(children) : children, {
    get(target, key) {
      unseen.delete(`${path}.${String(key)}`);
      return target[key];
    },
  });
}

function problems(document) {
  const name = `${document.kind}/${document.metadata?.name}`;
  const model = models[document.kind];
  if (!model) return [`${name}: no schema`];
  const unseen = new Set();
  try {
    // Not on an instance, whose constructor would copy every field and so look at it.
    model.prototype.validate.call(watched(document, '', unseen));
  } catch (error) {
    return [`${name}: ${error.message}`];
  }
  return [...unseen].map((place) => `${name}: ${place} is unknown`);
}

let input = '';
for await (const chunk of process.stdin) input += chunk;
console.log(JSON.stringify(JSON.parse(input).flatMap(problems)));
