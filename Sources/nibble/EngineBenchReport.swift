import Engine
import JSON

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The natural logarithm, of 1 - x for a uniform x from 0 on: never of 0.
func logarithm(_ uniform: Double) -> Double { log(1 - uniform) }

/// What a run of many requests came to.
struct EngineBenchReport {
  let records: [RequestRecord]
  let wall: Duration
  let statistics: EngineStatistics

  private var seconds: Double { wall.inSeconds }
  private var promptTokens: Int { records.reduce(0) { $0 + $1.usage.promptTokens } }
  private var completionTokens: Int { records.reduce(0) { $0 + $1.usage.completionTokens } }
  private var hitRate: Double { promptTokens == 0 ? 0 : Double(statistics.cachedPromptTokens) / Double(promptTokens) }
  /// Microseconds.
  private var overheadPerStep: Double { perStep(statistics.overheadTime) * 1e6 }
  private var deliveryPerStep: Double { perStep(statistics.deliveryTime) * 1e6 }
  /// Milliseconds.
  private var modelPerStep: Double { perStep(statistics.modelTime) * 1e3 }

  private func perStep(_ time: Duration) -> Double { time.inSeconds / Double(max(1, statistics.steps)) }

  /// Milliseconds.
  private var timeToFirstToken: Percentiles {
    Percentiles(records.map { $0.timings.timeToFirstToken.inSeconds * 1000 })
  }
  private var betweenTokens: Percentiles { Percentiles(records.flatMap { $0.gaps.map { $0 * 1000 } }) }
  private var latency: Percentiles { Percentiles(records.map { $0.latency * 1000 }) }

  var text: String {
    let cache = statistics.kvCache
    let lines = [
      "requests       \(records.count) in \(seconds.decimals(2)) s, \((Double(records.count) / seconds).decimals(2)) a second",
      "prompt         \(promptTokens) tokens, \((Double(promptTokens) / seconds).decimals(1)) a second; "
        + "\((hitRate * 100).decimals(1))% from the prefix cache",
      "answers        \(completionTokens) tokens, \((Double(completionTokens) / seconds).decimals(1)) a second",
      "first token    \(timeToFirstToken.text) ms",
      "between tokens \(betweenTokens.text) ms",
      "latency        \(latency.text) ms",
      "steps          \(statistics.steps): model \(modelPerStep.decimals(2)) ms, overhead \(overheadPerStep.decimals(1)) us each, "
        + "and delivery beside it \(deliveryPerStep.decimals(1)) us; at most \(statistics.peakRunningRequests) requests at once",
      "kv cache       \(cache.recipes): \(cache.bytesPerToken) bytes a token; at most "
        + "\(cache.peakActivePages * cache.pageSize) of \(cache.totalTokens) tokens in use",
      "preemptions    \(statistics.preemptions), \(statistics.swapOuts) of them swapped out; "
        + "\(cache.evictedPages) pages evicted",
    ]
    let speculation = statistics.speculation
    let drafts =
      "drafts         \((speculation.acceptanceRate * 100).decimals(1))% of \(speculation.draftTokens) accepted, "
      + "\(speculation.tokensPerStep.decimals(2)) tokens a step"
    return (lines + (speculation.checks > 0 ? [drafts] : [])).joined(separator: "\n") + "\n"
  }

  var json: JSONValue {
    let cache = statistics.kvCache
    return [
      "requests": .integer(Int64(records.count)),
      "duration_s": .number(seconds),
      "request_throughput": .number(Double(records.count) / seconds),
      "input_tokens": .integer(Int64(promptTokens)),
      "output_tokens": .integer(Int64(completionTokens)),
      "input_throughput": .number(Double(promptTokens) / seconds),
      "output_throughput": .number(Double(completionTokens) / seconds),
      "ttft_ms": timeToFirstToken.json,
      "itl_ms": betweenTokens.json,
      "latency_ms": latency.json,
      "cache_hit_rate": .number(hitRate),
      "steps": .integer(Int64(statistics.steps)),
      "model_ms_per_step": .number(modelPerStep),
      "overhead_us_per_step": .number(overheadPerStep),
      "delivery_us_per_step": .number(deliveryPerStep),
      "peak_running_requests": .integer(Int64(statistics.peakRunningRequests)),
      "draft_tokens": .integer(Int64(statistics.speculation.draftTokens)),
      "draft_acceptance_rate": .number(statistics.speculation.acceptanceRate),
      "tokens_per_step": .number(statistics.speculation.tokensPerStep),
      "preemptions": .integer(Int64(statistics.preemptions)),
      "swap_outs": .integer(Int64(statistics.swapOuts)),
      "kv_cache": [
        "dtype_k": .string(cache.dtypeK), "dtype_v": .string(cache.dtypeV),
        "bytes_per_token": .integer(Int64(cache.bytesPerToken)), "ratio_to_bf16": .number(cache.ratioToBF16),
        "total_tokens": .integer(Int64(cache.totalTokens)),
        "peak_tokens_used": .integer(Int64(cache.peakActivePages * cache.pageSize)),
        "evicted_pages": .integer(Int64(cache.evictedPages)),
        "copied_pages": .integer(Int64(cache.copiedPages)),
      ],
    ]
  }
}

/// Mean and percentiles of a sample; nearest rank.
struct Percentiles {
  private let sorted: [Double]

  init(_ values: [Double]) { sorted = values.sorted() }

  private var mean: Double { sorted.isEmpty ? 0 : sorted.reduce(0, +) / Double(sorted.count) }

  private func at(_ percent: Int) -> Double {
    sorted.isEmpty ? 0 : sorted[max(0, (sorted.count * percent + 99) / 100 - 1)]
  }

  var text: String {
    let (mean, p50, p90, p99) = (mean, at(50), at(90), at(99))
    return "mean \(mean.decimals(2)), p50 \(p50.decimals(2)), "
      + "p90 \(p90.decimals(2)), p99 \(p99.decimals(2))"
  }

  var json: JSONValue {
    ["mean": .number(mean), "p50": .number(at(50)), "p90": .number(at(90)), "p99": .number(at(99))]
  }
}
