//! Traces to an OpenTelemetry collector, by OTLP over gRPC. Configured by the variables that every OpenTelemetry program
//! knows (`OTEL_EXPORTER_OTLP_ENDPOINT` switches it on). Owned by the process's log; built with the feature `otlp` only.

use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::logs;

/// How long the last spans may take to leave when the process ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where spans are sent. They wait in a bounded queue of the library's; what does not fit is dropped.
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts to send, if the environment says where to. Needs the runtime's context.
    ///
    /// # Errors
    /// When a variable has a value that cannot be used.
    pub(super) fn start() -> anyhow::Result<Option<Self>> {
        if !logs::wants_traces() {
            return Ok(None);
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(protocol) = logs::set(name).filter(|protocol| protocol != "grpc") {
                bail!("{name}: only `grpc` is spoken (a collector's port 4317), not `{protocol}`");
            }
        }
        let exporter = SpanExporter::builder().with_tonic().build().context("traces: OTEL_EXPORTER_OTLP_ENDPOINT")?;
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if logs::set("OTEL_SERVICE_NAME").is_none() && !logs::set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(names_service)
        {
            resource = resource.with_service_name("weft");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Some(Self(provider)))
    }

    /// The layer that turns spans into traces: all of our own, and with them our log lines of level `info` and above.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let ours = |metadata: &Metadata<'_>, context: &Context<'_, S>| {
            metadata.target().starts_with("weft")
                && (metadata.is_span() || *metadata.level() <= Level::INFO)
                // What the node does for itself, every second, is nobody's trace.
                && (metadata.name() != "engine" || context.lookup_current().is_some())
        };
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("weft"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(dynamic_filter_fn(ours))
    }

    /// Sends what is left. Blocks for a bounded time.
    pub(super) fn finish(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(FAREWELL) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Whether `OTEL_RESOURCE_ATTRIBUTES` names the service.
fn names_service(attributes: String) -> bool {
    attributes.split(',').any(|attribute| attribute.trim_start().starts_with("service.name="))
}
