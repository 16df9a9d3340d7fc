import ArgumentParser
import Engine
import JSON
import TextCodec

struct GenerateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate",
    abstract: "Answer one prompt; the text goes to stdout, what is known about the run to stderr.")

  @Argument(help: "The prompt; - reads it from standard input.")
  var prompt: String

  @Option(help: "A system message in front of the prompt.")
  var system: String?

  @Flag(help: "Give the prompt to the model as it is, without a chat template.")
  var raw = false

  @Flag(help: "Print one JSON object instead of the text.")
  var json = false

  @OptionGroup var dryRunOption: DryRunOption

  @OptionGroup(title: "Sampling") var sampling: SamplingOptions
  @OptionGroup(title: "Model") var modelOptions: ModelOptions
  @OptionGroup(title: "KV cache") var cacheOptions: CacheOptions
  @OptionGroup(title: "Engine") var engineOptions: EngineOptions

  func run() async throws {
    let text = prompt == "-" ? try Console.readAll() : prompt
    guard !text.isEmpty else { throw EngineError.emptyPrompt }
    let plan = try RunPlan(model: modelOptions, cache: cacheOptions, engine: engineOptions)
    let tokens = try tokens(of: text, plan)
    let request = Request(
      tokens: tokens,
      sampling: try sampling.parameters(
        defaults: plan.generation, room: plan.limits.contextLength - tokens.count))
    let (_, maxTokens) = try plan.limits.validate(request)
    if dryRunOption.dryRun {
      let prompt = [
        RunPlan.Decision("request", "prompt_tokens", .integer(Int64(tokens.count)), templateReason(plan)),
        .init("request", "max_tokens", .integer(Int64(maxTokens)), sampling.lengthReason(plan.generation)),
      ]
      return RunPlanReport(plan, adding: prompt + sampling.decisions(request.sampling, plan.generation))
        .write(asJSON: json)
    }
    let session = try TextSession(plan, model: modelOptions, cache: cacheOptions, engine: engineOptions)

    var answer = ""
    var ids: [Int32] = []
    for try await event in session.engine.generate(request) {
      switch event {
      case .token(let token):
        ids.append(token.id)
        answer += token.text
        if !json { Console.write(token.text) }
      case .finished(let completion):
        answer += completion.text
        if json {
          Console.write(report(completion, answer: answer, ids: ids, session: session).serialized(pretty: true) + "\n")
        } else {
          Console.write(completion.text + "\n")
          session.report(completion).forEach(Console.error)
        }
      }
    }
    await session.engine.shutDown()
  }

  /// The prompt as a user's message in the model's chat template, or as it is where there is none or none is wanted.
  private func tokens(of text: String, _ plan: RunPlan) throws -> [Int32] {
    guard !raw, let template = try plan.chatTemplate() else {
      guard system == nil else {
        throw CommandFailure(
          .usage, "--system needs a chat template, and \(raw ? "--raw asks for none" : "this model has none")")
      }
      return plan.tokenizer.encode(text, addSpecialTokens: true, allowSpecial: true)
    }
    var messages = [ChatMessage(role: "user", content: text)]
    if let system { messages.insert(ChatMessage(role: "system", content: system), at: 0) }
    return plan.tokenizer.encode(
      try template.render(messages: messages, addGenerationPrompt: true), addSpecialTokens: false, allowSpecial: true)
  }

  private func templateReason(_ plan: RunPlan) -> String {
    if raw { return "--raw" }
    return (try? plan.chatTemplate()) == nil ? "the model has no chat template" : "in the model's chat template"
  }

  private func report(_ completion: Completion, answer: String, ids: [Int32], session: TextSession) -> JSONValue {
    let statistics = session.engine.statistics()
    let (cache, speculation) = (statistics.kvCache, statistics.speculation)
    let (usage, timings) = (completion.usage, completion.timings)
    return [
      "text": .string(answer),
      "token_ids": .array(ids.map { .integer(Int64($0)) }),
      "prompt_tokens": .integer(Int64(usage.promptTokens)),
      "completion_tokens": .integer(Int64(usage.completionTokens)),
      "finish_reason": .string(completion.reason.rawValue),
      "timings": [
        "time_to_first_token_ms": .number(timings.timeToFirstToken.inSeconds * 1000),
        "prefill_ms": .number(timings.prefill.inSeconds * 1000),
        "decode_ms": .number(timings.decode.inSeconds * 1000),
        "prefill_tokens_per_second": .number(timings.prefillTokensPerSecond),
        "decode_tokens_per_second": .number(timings.decodeTokensPerSecond),
      ],
      "kv_cache": [
        "dtype_k": .string(cache.dtypeK), "dtype_v": .string(cache.dtypeV),
        "bytes_per_token": .integer(Int64(cache.bytesPerToken)), "ratio_to_bf16": .number(cache.ratioToBF16),
        "tokens_used": .integer(Int64(usage.kvTokens)),
        "bytes_used": .integer(Int64(usage.kvTokens * cache.bytesPerToken)),
        "replaced_nonfinite": .integer(Int64(clamping: cache.replacedNonfinite)),
        "subnormal_scale_share": .number(cache.subnormalScaleShare),
      ],
      "speculation": session.engine.configuration.speculation == nil
        ? .null
        : [
          "draft_tokens": .integer(Int64(speculation.draftTokens)),
          "accepted_tokens": .integer(Int64(speculation.acceptedTokens)),
          "acceptance_rate": .number(speculation.acceptanceRate),
          "tokens_per_step": .number(speculation.tokensPerStep),
        ],
      "attention_backend": ["name": .string(session.attention.name), "reason": .string(session.attention.reason)],
    ]
  }
}
