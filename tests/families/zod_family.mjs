// A family as somebody writes it with Zod; prints its schema.
import { z } from 'zod';

const Line = z.object({ sku: z.string(), count: z.int().positive() }).meta({ id: 'InvoiceLine' });

const family = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('invoice.sent'),
    data: z.object({
      invoice_id: z.string(),
      lines: z.array(Line),
      sent_at: z.iso.datetime(),
      note: z.string().optional(),
      due: z.string().nullable(),
      tags: z.record(z.string(), z.string()),
      place: z.tuple([z.number(), z.number()]),
      state: z.enum(['new', 'paid']),
      by: z.discriminatedUnion('kind', [
        z.object({ kind: z.literal('card'), last4: z.string() }),
        z.object({ kind: z.literal('cash') }),
      ]),
      either: z.union([z.string(), z.number()]),
    }),
  }),
  z.object({ type: z.literal('invoice.voided'), data: z.object({ invoice_id: z.string() }) }),
]);
console.log(JSON.stringify(z.toJSONSchema(family)));
