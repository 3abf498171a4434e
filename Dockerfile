# The image that `make image` makes, for those who would rather use a container engine. tools/image holds the two to each other; only
# the roots differ: here they are Debian's, there Mozilla's as the Go project packs them.
#
#   docker build --build-arg VERSION=0.1.0 -t gatehouse:0.1.0 .

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=unknown
RUN mkdir -p /root-of-image/etc/ssl/certs \
 && echo 'gatehouse:x:65532:' >/root-of-image/etc/group \
 && echo 'gatehouse:x:65532:65532:gatehouse:/:/sbin/nologin' >/root-of-image/etc/passwd \
 && cp /etc/ssl/certs/ca-certificates.crt /root-of-image/etc/ssl/certs/ca-certificates.crt \
 && CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=$VERSION" -o /root-of-image/gatehouse ./cmd/gatehouse
# Permitted and not effective, so that it starts in a container that does not have the capability too.
RUN apt-get update -qq && apt-get install -y -qq libcap2-bin && cd /root-of-image && setcap cap_net_bind_service=p gatehouse

FROM scratch
ARG VERSION=unknown REVISION=
LABEL org.opencontainers.image.title="gatehouse" \
      org.opencontainers.image.description="The edge of a Kubernetes cluster: ingress controller and API gateway" \
      org.opencontainers.image.source="https://github.com/gatehouse-io/gatehouse" \
      org.opencontainers.image.url="https://github.com/gatehouse-io/gatehouse" \
      org.opencontainers.image.documentation="https://github.com/gatehouse-io/gatehouse/blob/main/docs/README.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /root-of-image/ /
WORKDIR /
USER 65532:65532
EXPOSE 9902/tcp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/gatehouse"]
